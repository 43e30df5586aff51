# SPDX-License-Identifier: Apache-2.0
"""Makes the golden checkpoint of the runtime tests with the reference implementation.

Needs transformers 5.12, torch and safetensors (Debian: python3-transformers, python3-torch,
python3-safetensors). Writes, beside this file:

    tiny/config.json, generation_config.json, model.safetensors   a random Gemma3nForCausalLM, bf16
    tiny/expected.json          input ids, greedy continuations of the whole model and the slices
    tiny/expected.safetensors   logits of every position, whole model and slices
    slices/*.json               MatFormer sub-models, in the format of `nestling eval --slice`

Everything is computed in f32 by the eager reference. Run it again only to change the checkpoint:
the result is committed.
"""
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

HERE = pathlib.Path(__file__).parent
SEED = 300
LAYERS, SHARED, FFN, PLE_VOCAB, VOCAB = 11, 5, 96, 268, 300
PROMPT, NEW_TOKENS = 45, 24


def make_config():
    types = ["full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(LAYERS)]
    return Gemma3nTextConfig(
        vocab_size=VOCAB, vocab_size_per_layer_input=PLE_VOCAB, hidden_size=64,
        hidden_size_per_layer_input=32, intermediate_size=[FFN] * LAYERS,
        num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        num_kv_shared_layers=SHARED, layer_types=types, sliding_window=12, laurel_rank=32,
        activation_sparsity_pattern=[0.9] * 3 + [0.0] * (LAYERS - 3),
        max_position_embeddings=40960, pad_token_id=0, eos_token_id=1, bos_token_id=2)


def randomise(model):
    """Scales that keep the activations of random layers from exploding (cf. the oracle's notes)."""
    generator = torch.Generator().manual_seed(SEED)
    centres = {"q_norm": 0.6, "k_norm": 0.6, "post_attention_layernorm": 0.6,
               "post_per_layer_input_norm": 0.5, "post_feedforward_layernorm": 0.4}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_tokens_per_layer" in name:
                parameter.copy_(noise / 32 ** 0.5)
            elif "embed_tokens" in name:
                parameter.copy_(noise * 0.25)
                parameter[PLE_VOCAB:] = parameter[0]
            elif parameter.dim() == 1:
                centre = next((c for key, c in centres.items() if key in name), 1.0)
                parameter.copy_(centre * (1 + 0.2 * noise))
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)


def slice_of(model, skip, widths):
    """The sub-model as a model of its own (MatFormer's rules: first rows, first columns)."""
    kept = [i for i in range(LAYERS) if i not in skip]
    config = make_config()
    config.num_hidden_layers = len(kept)
    config.intermediate_size = widths
    config.layer_types = [model.config.layer_types[i] for i in kept]
    config.activation_sparsity_pattern = [model.config.activation_sparsity_pattern[i] for i in kept]
    config.num_kv_shared_layers = sum(i >= LAYERS - SHARED for i in kept)
    config._attn_implementation = "eager"
    state, ple = {}, 32
    for name, value in model.state_dict().items():
        if ".layers." in name:
            number = int(name.split(".layers.")[1].split(".")[0])
            if number not in kept:
                continue
            new = kept.index(number)
            name = name.replace(f".layers.{number}.", f".layers.{new}.")
            if "gate_proj" in name or "up_proj" in name:
                value = value[: widths[new]]
            elif "down_proj" in name:
                value = value[:, : widths[new]]
        elif "embed_tokens_per_layer" in name:
            value = value.view(-1, LAYERS, ple)[:, kept].reshape(value.shape[0], -1)
        elif "per_layer_model_projection" in name:
            value = value.view(LAYERS, ple, -1)[kept].reshape(-1, value.shape[1])
        state[name] = value.clone()
    sliced = Gemma3nForCausalLM(config)
    missing, unexpected = sliced.load_state_dict(state, strict=False)
    assert not unexpected and all("lm_head" in m for m in missing), (missing, unexpected)
    return sliced.float().eval()


def evaluate(model, ids, prefix, logits):
    with torch.no_grad():
        logits[prefix] = model(ids[None]).logits[0].float().contiguous()
        tokens, cache, step = [], None, ids[None]
        for _ in range(NEW_TOKENS):
            result = model(step, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            top = result.logits[0, -1].topk(2)
            margin = (top.values[0] - top.values[1]).item()
            assert margin > 5e-3, f"{prefix}: margin {margin} is too small, change the seed"
            tokens.append(top.indices[0].item())
            step = top.indices[:1][None]
    assert prefix != "whole" or len(set(tokens)) >= 8, f"{tokens} shows little, change the seed"
    return tokens


def main():
    torch.manual_seed(SEED)
    config = make_config()
    config._attn_implementation = "eager"
    model = Gemma3nForCausalLM(config)
    randomise(model)
    model = model.to(torch.bfloat16)  # what the file holds ...
    (HERE / "tiny").mkdir(exist_ok=True)
    model.save_pretrained(HERE / "tiny")
    # ... computed in f32. Read again: constants such as embedding scales must not be rounded to bf16.
    model = Gemma3nForCausalLM.from_pretrained(
        HERE / "tiny", dtype=torch.float32, attn_implementation="eager").eval()

    ids = torch.randint(3, PLE_VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(7))
    logits = {}
    greedy = {"whole": evaluate(model, ids, "whole", logits)}
    (HERE / "slices").mkdir(exist_ok=True)
    for name, skip, widths in [
            ("narrow", [], [32] * LAYERS),
            ("skip", [7, 10], [96] * 9),
            ("mixed", [8], [32, 64, 96, 32, 64, 96, 96, 64, 32, 32])]:
        with open(HERE / "slices" / f"{name}.json", "w") as file:
            json.dump({"name": name, "skip_layers": skip, "ffn": widths}, file)
            file.write("\n")
        greedy[name] = evaluate(slice_of(model, skip, widths), ids, name, logits)
    save_file(logits, HERE / "tiny" / "expected.safetensors")
    with open(HERE / "tiny" / "expected.json", "w") as file:
        json.dump({"input_ids": ids.tolist(), "greedy": greedy}, file)
        file.write("\n")


main()
