# SPDX-License-Identifier: Apache-2.0
"""Cuts the golden data of the vision tests out of a reference case.

The case is a small random Gemma3nForConditionalGeneration checkpoint in the Hugging Face layout
(config.json, preprocessor_config.json, model.safetensors in bf16, raw_image.ppm) with the values
that transformers and timm compute from it in f32 (expected.safetensors: pixel_values,
image_soft_tokens). The stage outputs are not kept here: they would be larger than the weights.

    python3 cut_golden.py CASE_FOLDER
"""
import json
import pathlib
import shutil
import struct
import sys

HERE = pathlib.Path(__file__).parent


def read_safetensors(path):
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    return {
        name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])])
        for name, t in header.items()
    }


def write_safetensors(path, tensors):
    header, body = {}, b""
    for name, (dtype, shape, data) in sorted(tensors.items()):
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def main():
    case = pathlib.Path(sys.argv[1])
    tower = {}
    for name, tensor in read_safetensors(case / "model.safetensors").items():
        # The table of hard embeddings is no part of the tower.
        name = name.removeprefix("model.").removesuffix(".weight")
        if name.startswith(("vision_tower.", "embed_vision.")):
            if name not in ("embed_vision.embedding", "embed_vision.hard_embedding_norm"):
                tower[name] = tensor
    write_safetensors(HERE / "tower.safetensors", tower)

    expected = read_safetensors(case / "expected.safetensors")
    write_safetensors(
        HERE / "expected.safetensors", {"soft_tokens": expected["image_soft_tokens"]}
    )
    # The preprocessed picture has 8 bits a channel: as such it is a quarter of the size.
    _, (_, height, width), data = expected["pixel_values"]
    values = struct.unpack(f"<{3 * height * width}f", data)
    plane = height * width
    levels = bytes(round(values[c * plane + i] * 255) for i in range(plane) for c in range(3))
    (HERE / "resized.ppm").write_bytes(f"P6 {width} {height} 255\n".encode() + levels)
    shutil.copy(case / "raw_image.ppm", HERE / "raw.ppm")

    config = json.loads((case / "config.json").read_text())
    golden = {
        "hidden_size": config["text_config"]["hidden_size"],
        "soft_tokens": config["vision_soft_tokens_per_image"],
        "vision_config": config["vision_config"],
        "preprocessor_config": json.loads((case / "preprocessor_config.json").read_text()),
    }
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
