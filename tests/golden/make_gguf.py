# SPDX-License-Identifier: Apache-2.0
"""GGUF files for the tests, and a comparison with llama.cpp. Needs numpy and gguf (Debian:
python3-gguf); `compare` also llama-server and llama-quantize (Debian: llama.cpp-tools).

    make_gguf.py blocks OUT.gguf    random blocks of every element type that `nestling pack` reads,
                                    "q4_k", and what gguf makes of them, "q4_k.f32": committed as
                                    gguf/blocks.gguf
    make_gguf.py model OUT.gguf     a small random gemma3n that llama.cpp accepts: it fixes 20 layers
                                    with keys and values, 10 sparse ones, a PLE width of 256 and a
                                    LAuReL rank of 64
    make_gguf.py compare NESTLING   packs that model as f32, f16, and in the formats of
                                    llama-quantize, and compares greedy tokens and their
                                    log-probabilities with llama.cpp's
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import gguf
import numpy as np

T = gguf.GGMLQuantizationType
LAYERS, SHARED, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN = 25, 5, 256, 4, 2, 64, 512
PLE_DIM, RANK, TEXT_VOCAB, VOCAB, WINDOW = 256, 64, 320, 576, 32
SPARSE_LAYERS, Z = 10, 1.6448533535003662
PROMPT, NEW_TOKENS = 70, 32


def make_blocks(path):
    writer = gguf.GGUFWriter(path, "blocks")
    rng = np.random.default_rng(5)
    for kind in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K):
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows, columns = 2, 512
        row_bytes = columns // elements * size
        raw = rng.integers(0, 256, (rows, row_bytes), dtype=np.uint8)
        if elements == 1:
            raw = gguf.quants.quantize(rng.standard_normal((rows, columns), dtype=np.float32), kind)
        else:  # any bits are codes, but scales should be numbers of a usual size
            blocks = raw.reshape(-1, size)
            places = {T.Q6_K: [208], T.Q4_1: [0, 2], T.Q5_1: [0, 2], T.Q4_K: [0, 2], T.Q5_K: [0, 2]}
            for place in places.get(kind, [0]):
                scales = rng.standard_normal(len(blocks)).astype(np.float16) * np.float16(0.1)
                blocks[:, place:place + 2] = scales.view(np.uint8).reshape(-1, 2)
        name = kind.name.lower()
        writer.add_tensor(name, raw, raw_dtype=None if elements == 1 and kind != T.BF16 else kind)
        writer.add_tensor(name + ".f32", gguf.quants.dequantize(raw, kind).astype(np.float32))
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer):
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{i:02X}>" for i in range(256)]
    types = [3, 3, 3, 2] + [6] * 256
    while len(tokens) < TEXT_VOCAB:
        tokens.append(f"<t{len(tokens)}>")
        types.append(4)
    while len(tokens) < VOCAB:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)


def make_model(path, f16=False, seed=11):
    writer = gguf.GGUFWriter(path, "gemma3n")
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length([FFN] * LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern([(i + 1) % 5 != 0 for i in range(LAYERS)])
    writer.add_shared_kv_layers(SHARED)
    writer.add_activation_sparsity_scale(
        [Z if i < SPARSE_LAYERS else float("-inf") for i in range(LAYERS)])
    writer.add_altup_active_idx(0)
    writer.add_altup_num_inputs(4)
    writer.add_embedding_length_per_layer_input(PLE_DIM)
    writer.add_final_logit_softcapping(30.0)
    add_vocabulary(writer)

    rng = np.random.default_rng(seed)

    def noise(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    def add(name, values):
        half = f16 and values.ndim > 1
        writer.add_tensor(name, values.astype(np.float16 if half else np.float32))

    def matrix(name, *shape):
        add(name + ".weight", noise(*shape) / np.float32(shape[-1] ** 0.5))

    def norm(name, centre, size=HIDDEN):
        add(name + ".weight", np.float32(centre) * (1 + np.float32(0.2) * noise(size)))

    embedding, ple = noise(VOCAB, HIDDEN) * np.float32(0.25), noise(VOCAB, LAYERS * PLE_DIM) / 16
    embedding[:260] *= 0.1  # no special token, and no byte, becomes the most likely one
    embedding[TEXT_VOCAB:], ple[TEXT_VOCAB:] = embedding[0], 0
    add("token_embd.weight", embedding)
    add("per_layer_token_embd.weight", ple)
    matrix("per_layer_model_proj", LAYERS * PLE_DIM, HIDDEN)
    norm("per_layer_proj_norm", 1.0, PLE_DIM)
    matrix("altup_proj", 3, HIDDEN, HIDDEN)
    matrix("altup_unembd_proj", 3, HIDDEN, HIDDEN)
    add("output_norm.weight", noise(HIDDEN))  # any sign, or each token would predict itself
    for i in range(LAYERS):
        b = f"blk.{i}."
        for name, centre in [("attn_norm", 1.0), ("post_attention_norm", 0.6), ("ffn_norm", 1.0),
                             ("post_ffw_norm", 0.4), ("post_norm", 0.5), ("altup_router_norm", 1.0),
                             ("altup_correct_scale", 1.0), ("laurel_post_norm", 1.0)]:
            norm(b + name, centre)
        norm(b + "attn_q_norm", 0.6, HEAD_DIM)
        norm(b + "attn_k_norm", 0.6, HEAD_DIM)
        matrix(b + "attn_q", HEADS * HEAD_DIM, HIDDEN)
        matrix(b + "attn_k", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(b + "attn_v", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(b + "attn_output", HIDDEN, HEADS * HEAD_DIM)
        matrix(b + "ffn_gate", FFN, HIDDEN)
        matrix(b + "ffn_up", FFN, HIDDEN)
        matrix(b + "ffn_down", HIDDEN, FFN)
        matrix(b + "inp_gate", PLE_DIM, HIDDEN)
        matrix(b + "proj", HIDDEN, PLE_DIM)
        matrix(b + "altup_correct_coef", 4, 4)
        matrix(b + "altup_predict_coef", 16, 4)
        matrix(b + "altup_router", 4, HIDDEN)
        matrix(b + "laurel_l", RANK, HIDDEN)
        matrix(b + "laurel_r", HIDDEN, RANK)
    finish(writer)


def ask_llama(model, prompt, port):
    """The greedy tokens that llama.cpp appends, and their log-probabilities."""
    server = subprocess.Popen(
        ["llama-server", "-m", model, "--port", str(port), "-t", "1", "-c", "256", "--parallel", "1",
         "-ctk", "f32", "-ctv", "f32", "--no-webui", "--no-warmup", "-fa", "off"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        body = json.dumps({"prompt": prompt, "n_predict": NEW_TOKENS, "temperature": 0,
                           "return_tokens": True, "n_probs": 2, "cache_prompt": False}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", body,
                                         {"Content-Type": "application/json"})
        for _ in range(120):
            if server.poll() is not None:
                raise RuntimeError(f"llama-server ended with {server.returncode}")
            try:
                with urllib.request.urlopen(request) as reply:
                    answer = json.load(reply)
                break
            except OSError:
                time.sleep(0.5)
        return answer["tokens"], [step["logprob"] for step in answer["completion_probabilities"]]
    finally:
        server.terminate()
        server.wait()


def ask_nestling(tool, model, prompt, folder, quant, reference):
    container = os.path.join(folder, "model.nest")
    subprocess.run([tool, "pack", model, "-o", container, *quant], check=True, capture_output=True)
    ids = ",".join(map(str, prompt))
    run = subprocess.run([tool, "eval", container, "--tokens", ids, "--greedy", str(NEW_TOKENS)],
                         check=True, capture_output=True, text=True)
    tokens = json.loads(run.stdout)
    # The log-probabilities of llama.cpp's tokens, so that both are about the same text.
    ids = ",".join(map(str, prompt + reference[:-1]))
    dump = os.path.join(folder, "logits.npy")
    subprocess.run([tool, "eval", container, "--tokens", ids, "--dump", dump], check=True)
    logits = np.load(dump)[len(prompt) - 1:].astype(np.float64)
    top = logits.max(-1, keepdims=True)
    logprobs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
    return tokens, logprobs[np.arange(len(reference)), reference]


def weights_hash(tool, model, folder):
    """Of the container's tensors, without the names of files."""
    container = os.path.join(folder, "model.nest")
    subprocess.run([tool, "pack", model, "-o", container, "--quant", "f32"], check=True,
                   capture_output=True)
    run = subprocess.run([tool, "inspect", container, "--json"], check=True, capture_output=True)
    return {s["name"]: s["xxh3"] for s in json.loads(run.stdout)["sections"]}


def compare(tool):
    prompt = [2] + np.random.default_rng(3).integers(260, TEXT_VOCAB, PROMPT - 1).tolist()
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name + ".gguf")
        make_model(path("f32"))
        make_model(path("f16"), f16=True)
        files = ["f32", "f16"]
        for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M", "Q5_K_M", "Q6_K"):
            subprocess.run(["llama-quantize", path("f32"), path(name), name], check=True,
                           capture_output=True)
            files.append(name)
        print("file, packed as: equal tokens (different ones); largest difference of "
              "log-probabilities")
        for i, name in enumerate(files):
            # llama.cpp computes quantised matrices with 8-bit activations. What it makes of them in
            # f32 has the same weights without that.
            plain = path(name)
            if i >= 2:
                plain = path("plain")
                subprocess.run(["llama-quantize", "--allow-requantize", path(name), plain, "F32"],
                               check=True, capture_output=True)
            want, want_logprobs = ask_llama(plain, prompt, 18080 + i)
            packings = [["f32"]]
            if name == "Q4_0":
                packings += [["q4b32"], ["q4b32", "--embed-quant", "q8c", "--ple-quant", "q8c"]]
            for packing in packings:
                got, got_logprobs = ask_nestling(tool, path(name), prompt, folder,
                                                 ["--quant", *packing], want)
                same = next((k for k, (a, b) in enumerate(zip(got, want)) if a != b), len(want))
                error = np.abs(got_logprobs - want_logprobs).max()
                print(f"{name}, {' '.join(packing)}: {same} of {len(want)} ({len(set(want))}); "
                      f"{error:.2g}", flush=True)
            if i >= 2:
                print(f"{name}: same f32 container as from llama-quantize's f32:",
                      weights_hash(tool, path(name), folder) == weights_hash(tool, plain, folder),
                      flush=True)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("blocks", "model", "compare"):
        sys.exit(__doc__)
    {"blocks": make_blocks, "model": make_model, "compare": compare}[sys.argv[1]](sys.argv[2])


main()
