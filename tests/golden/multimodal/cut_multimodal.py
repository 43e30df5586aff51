# SPDX-License-Identifier: Apache-2.0
"""Cuts the golden data of the multimodal tests out of a reference case.

The case is the one of ../vision/cut_golden.py: a small random Gemma3nForConditionalGeneration with
text decoder and both towers, and a prompt of text, one image and one sound that transformers ran in
f32. Writes, beside this file:

    config.json, preprocessor_config.json   of the checkpoint
    rest.safetensors        its tensors, without those that are in ../vision/tower.safetensors
    expected.safetensors    the sound; merged embeddings and logits of every position of the prompt;
                            soft tokens of the sound (those of the image are in ../vision)
    expected.json           ids of the prompt, greedy continuation

    python3 cut_multimodal.py CASE_FOLDER
"""
import json
import pathlib
import shutil
import struct
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "vision"))
from cut_golden import read_safetensors, write_safetensors  # noqa: E402


def integers(tensor):
    _, _, data = tensor
    return list(struct.unpack(f"<{len(data) // 8}q", data))


def main():
    case = pathlib.Path(sys.argv[1])
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copyfile(case / name, HERE / name)

    elsewhere = read_safetensors(HERE.parent / "vision" / "tower.safetensors")
    rest, found = {}, 0
    for name, tensor in read_safetensors(case / "model.safetensors").items():
        known = elsewhere.get(name.removeprefix("model.").removesuffix(".weight"))
        if known is None:
            rest[name] = tensor
        else:
            assert known == tensor, f"{name} is another one in ../vision"
            found += 1
    assert found == len(elsewhere), "../vision was cut out of another case"
    write_safetensors(HERE / "rest.safetensors", rest)

    expected = read_safetensors(case / "expected.safetensors")
    kept = ("waveform", "audio_soft_tokens", "inputs_embeds", "logits")
    write_safetensors(HERE / "expected.safetensors", {name: expected[name] for name in kept})
    (HERE / "expected.json").write_text(json.dumps({
        "input_ids": integers(expected["input_ids"]),
        "greedy": integers(expected["greedy_tokens"]),
        "logits_tolerance": json.loads((case / "case.json").read_text())["tolerance"]["logits_atol"],
    }) + "\n")


if __name__ == "__main__":
    main()
