# SPDX-License-Identifier: Apache-2.0
"""What the vision tower is compared with: the same encoder with random weights elsewhere.

    vision_peers.py time [THREADS]            seconds an image of timm's encoder, PyTorch, f32
    vision_peers.py projector OUT.gguf        a projector file for llama-mtmd-cli --mmproj

Needs PyTorch and timm (mobilenetv5_300m_enc; development version of 2026-08 or later); `projector` also
gguf (Debian: python3-gguf). A projector takes 600 MB of disk: f16 matrices and convolutions, the rest f32,
as llama.cpp's converter writes them. It goes with the text model of make_e2b_gguf.py.
"""
import sys
import time

import timm
import torch

TOKENS_HIDDEN = 2048  # of the decoder


def encoder():
    torch.manual_seed(1)
    return timm.create_model("mobilenetv5_300m_enc", pretrained=False).eval()


def time_encoder(threads):
    torch.set_num_threads(threads)
    model, image = encoder(), torch.rand(1, 3, 768, 768)
    with torch.inference_mode():
        for i in range(4):
            begin = time.perf_counter()
            model(image)
            print(f"image {i}: {time.perf_counter() - begin:.2f} s", flush=True)


def write_projector(path):
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.vision.projector_type", "gemma3nv")
    # llama.cpp 0.7.0 expects image_size / patch_size soft tokens, and uses the patch size for nothing else.
    for key, value in {"image_size": 768, "patch_size": 3, "embedding_length": 2048,
                       "feed_forward_length": 8192, "block_count": 84,
                       "attention.head_count": 8, "projection_dim": TOKENS_HIDDEN}.items():
        writer.add_uint32("clip.vision." + key, value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.0, 0.0, 0.0])
    writer.add_array("clip.vision.image_std", [1.0, 1.0, 1.0])
    tensors = {"v." + name.replace("blocks.", "blk."): value
               for name, value in encoder().state_dict().items()}
    tensors["mm.input_projection.weight"] = torch.randn(TOKENS_HIDDEN, 2048) / 2048 ** 0.5
    tensors["mm.soft_emb_norm.weight"] = torch.ones(2048)
    for name, value in tensors.items():
        if name.endswith(("conv_stem.conv.bias", "layer_scale.gamma")):
            value = value.reshape(1, -1, 1, 1)
        half = value.dim() > 1 and max(value.shape) != value.numel() and "stem" not in name
        writer.add_tensor(name, value.to(torch.float16 if half else torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    if sys.argv[1:2] == ["time"] and len(sys.argv) <= 3:
        time_encoder(int(sys.argv[2]) if len(sys.argv) == 3 else torch.get_num_threads())
    elif sys.argv[1:2] == ["projector"] and len(sys.argv) == 3:
        write_projector(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
