# SPDX-License-Identifier: Apache-2.0
"""Makes the golden data of the audio tests with the reference implementation.

Needs transformers 5.12, torch and safetensors (Debian: python3-transformers, python3-torch,
python3-safetensors). Writes, beside this file:

    golden.json             configuration of tower and front end
    tower.safetensors       a random Gemma3nAudioEncoder and Gemma3nMultimodalEmbedder, bf16, by
                            their names in a container
    expected.safetensors    a sound and what the reference makes of it, stage by stage

Everything is computed in f32 from the rounded weights. Run it again only to change the tower: the
result is committed.
"""
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Gemma3nAudioConfig, Gemma3nAudioFeatureExtractor, Gemma3nTextConfig
from transformers.models.gemma3n.modeling_gemma3n import (
    Gemma3nAudioEncoder, Gemma3nMultimodalEmbedder)

HERE = pathlib.Path(__file__).parent
SEED, HIDDEN, SOFT_TOKENS, SAMPLES = 501, 64, 12, 22345


def sound():
    """A gliding tone, clicks, noise and silence: loud and quiet bins side by side."""
    random = np.random.default_rng(SEED)
    t = np.arange(SAMPLES) / 16000
    wave = 0.4 * np.sin(2 * np.pi * (200 + 900 * t) * t) + 0.02 * random.standard_normal(SAMPLES)
    wave[6000:9000] *= 0.05
    wave[::4001] += 0.1
    return wave.astype(np.float32)


def randomise(module, generator):
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                centre = 0.0 if "per_dim_scale" in name else 1.0
                parameter.copy_(centre + 0.2 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            parameter.copy_(parameter.bfloat16().float())


def main():
    audio = Gemma3nAudioConfig(
        hidden_size=32, conf_num_attention_heads=2, conf_num_hidden_layers=3,
        sscp_conv_channel_size=(16, 8), vocab_size=4, vocab_offset=124)
    text = Gemma3nTextConfig(hidden_size=HIDDEN)
    generator = torch.Generator().manual_seed(SEED)
    encoder, embedder = Gemma3nAudioEncoder(audio).eval(), Gemma3nMultimodalEmbedder(audio, text).eval()
    encoder.config._attn_implementation = "eager"
    randomise(encoder, generator)
    randomise(embedder, generator)

    expected = {"waveform": torch.from_numpy(sound())}
    stages = {"subsample": encoder.subsample_conv_projection,
              "conv_1": encoder.subsample_conv_projection.conv_1}
    for i, block in enumerate(encoder.conformer):
        stages[f"conformer{i}"] = block
    stages["conformer0.ffw_start"] = encoder.conformer[0].ffw_layer_start
    stages["conformer0.attention"] = encoder.conformer[0].attention
    stages["conformer0.lconv"] = encoder.conformer[0].lconv1d
    stages["conformer0.ffw_end"] = encoder.conformer[0].ffw_layer_end
    for name, module in stages.items():
        def keep(_module, _inputs, output, name=name):
            expected[name] = output[0].detach().clone()
        module.register_forward_hook(keep)

    extractor = Gemma3nAudioFeatureExtractor()
    features = extractor(expected["waveform"].numpy(), return_tensors="pt")
    mel, mask = features["input_features"].float(), features["input_features_mask"]
    with torch.no_grad():
        output = encoder(mel, ~mask.bool())
        encodings, padded = (output.last_hidden_state, output.audio_mel_mask) \
            if hasattr(output, "last_hidden_state") else output[:2]
        assert not padded.any()
        expected["soft_tokens"] = embedder(inputs_embeds=encodings)[0]
        ids = torch.arange(audio.vocab_size)[None] + audio.vocab_offset
        expected["hard_tokens"] = embedder(input_ids=ids)[0]
    expected["mel"], expected["encodings"] = mel[0], encodings[0]
    # [channel, time, frequency] -> [time, frequency, channel]
    expected["conv_1"] = expected["conv_1"].permute(1, 2, 0)

    tower = {}
    for prefix, module in (("audio_tower.", encoder), ("embed_audio.", embedder)):
        for name, parameter in module.named_parameters():
            tower[prefix + name.removesuffix(".weight")] = parameter.detach().bfloat16()
    save_file(tower, HERE / "tower.safetensors")
    save_file({n: v.detach().contiguous() for n, v in expected.items()},
              HERE / "expected.safetensors")
    golden = {"hidden_size": HIDDEN, "soft_tokens": SOFT_TOKENS,
              "audio_config": audio.to_dict(), "preprocessor_config": extractor.to_dict()}
    for config in (golden["audio_config"], golden["preprocessor_config"]):
        for key in [k for k in config if k.endswith("_version") or k in ("mel_filters", "window")]:
            del config[key]
    (HERE / "golden.json").write_text(
        json.dumps(golden, indent=1, default=lambda v: np.asarray(v).tolist()) + "\n")


if __name__ == "__main__":
    main()
