# SPDX-License-Identifier: Apache-2.0
"""Writes a full-size Gemma 3n GGUF with random weights, in the formats that `llama-quantize ... Q4_0`
chooses: for comparing speed on the same weights with llama-bench, never for text.

    make_e2b_gguf.py OUT.gguf [e2b|e4b]

Needs numpy and gguf (Debian: python3-gguf). E2B takes 3.2 GB of disk, and 1.7 GB of memory.

llama-quantize (build 11669) makes of a 16-bit gemma3n: Q4_0 for the projections of every layer, Q6_K for
token_embd (the tied output head) and per_layer_token_embd; altup*, laurel* and per_layer_model_proj
stay as they are (F16 here), norms and the AltUp coefficients are F32.
"""
import sys

import gguf
import numpy as np

T = gguf.GGMLQuantizationType
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, PLE_DIM, RANK = 2048, 8, 2, 256, 256, 64
TEXT_VOCAB, VOCAB = 262144, 262400  # the rows above stand for soft tokens
PRESETS = {"e2b": (30, 10, 8192), "e4b": (35, 15, 16384)}  # layers, of these sharing k and v, ffn
SPARSE_LAYERS, Z = 10, 1.6448533535003662
RNG = np.random.default_rng(1)


def halves(values):
    return values.astype(np.float16).view(np.uint8).reshape(-1, 2)


def signs(n):
    return RNG.integers(0, 2, n).astype(np.float32) * 2 - 1


def q4_0(rows, columns):
    """Any codes, and scales of random sign: mean 0, variance 1 / columns."""
    n = rows * columns // 32
    blocks = np.frombuffer(bytearray(RNG.bytes(n * 18)), np.uint8).reshape(n, 18)
    scale = 1 / (4.6 * columns ** 0.5)  # 4.6: deviation of the codes -8..7
    blocks[:, :2] = halves(signs(n) * np.float32(scale))
    return blocks.reshape(rows, -1)


def q6_k(rows, columns, deviation):
    n = rows * columns // 256
    blocks = np.frombuffer(bytearray(RNG.bytes(n * 210)), np.uint8).reshape(n, 210)
    blocks[:, 192:208] = 64  # scales of 16 codes each; the codes -32..31 deviate by 18.5
    blocks[:, 208:] = halves(signs(n) * np.float32(deviation / (18.5 * 64)))
    return blocks.reshape(rows, -1)


def f16(*shape):
    values = RNG.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)
    return values.astype(np.float16)


def norm(centre, size=HIDDEN):
    """Centres below 1 keep the activations of random layers from growing."""
    return np.float32(centre) * (1 + np.float32(0.2) * RNG.standard_normal(size, dtype=np.float32))


def padded_table(layers):
    table = q6_k(VOCAB, layers * PLE_DIM, PLE_DIM ** -0.5)
    table[TEXT_VOCAB:] = 0  # as converters append them
    return table


def tensors(layers, ffn):
    """Names, shapes, types, and functions that make the values when it is their turn."""
    q = lambda rows, columns: (T.Q4_0, (rows, columns), lambda: q4_0(rows, columns))
    half = lambda *shape: (T.F16, shape, lambda: f16(*shape))
    coefficients = lambda *shape: (T.F32, shape, lambda: f16(*shape).astype(np.float32))
    vector = lambda centre, size=HIDDEN: (T.F32, (size,), lambda: norm(centre, size))
    yield "token_embd", (T.Q6_K, (VOCAB, HIDDEN), lambda: q6_k(VOCAB, HIDDEN, 0.25))
    yield "per_layer_token_embd", (T.Q6_K, (VOCAB, layers * PLE_DIM), lambda: padded_table(layers))
    yield "per_layer_model_proj", half(layers * PLE_DIM, HIDDEN)
    yield "per_layer_proj_norm", vector(1.0, PLE_DIM)
    yield "altup_proj", half(3, HIDDEN, HIDDEN)
    yield "altup_unembd_proj", half(3, HIDDEN, HIDDEN)
    yield "output_norm", vector(1.0)
    for i in range(layers):
        block = {
            "attn_norm": vector(1.0), "post_attention_norm": vector(0.6), "ffn_norm": vector(1.0),
            "post_ffw_norm": vector(0.4), "post_norm": vector(0.5),
            "altup_router_norm": vector(1.0), "altup_correct_scale": vector(1.0),
            "laurel_post_norm": vector(1.0), "attn_q_norm": vector(0.6, HEAD_DIM),
            "attn_k_norm": vector(0.6, HEAD_DIM), "attn_q": q(HEADS * HEAD_DIM, HIDDEN),
            "attn_k": q(KV_HEADS * HEAD_DIM, HIDDEN), "attn_v": q(KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output": q(HIDDEN, HEADS * HEAD_DIM), "ffn_gate": q(ffn, HIDDEN),
            "ffn_up": q(ffn, HIDDEN), "ffn_down": q(HIDDEN, ffn), "inp_gate": q(PLE_DIM, HIDDEN),
            "proj": q(HIDDEN, PLE_DIM), "altup_correct_coef": coefficients(4, 4),
            "altup_predict_coef": coefficients(16, 4), "altup_router": half(4, HIDDEN),
            "laurel_l": half(RANK, HIDDEN), "laurel_r": half(HIDDEN, RANK)}
        for name, description in block.items():
            yield f"blk.{i}.{name}", description


def add_vocabulary(writer):
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{i:02X}>" for i in range(256)]
    types = [3, 3, 3, 2] + [6] * 256
    for i in range(len(tokens), TEXT_VOCAB):
        tokens.append(f"t{i}")
        types.append(1)
    for i in range(TEXT_VOCAB, VOCAB):
        tokens.append(f"[PAD{i}]")
        types.append(5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(VOCAB)])
    writer.add_token_types(types)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(3)
    writer.add_add_space_prefix(False)


def main():
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and sys.argv[2] not in PRESETS):
        sys.exit(__doc__)
    layers, shared, ffn = PRESETS[sys.argv[2] if len(sys.argv) == 3 else "e2b"]
    writer = gguf.GGUFWriter(sys.argv[1], "gemma3n")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(2)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length([ffn] * layers)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_sliding_window(512)
    writer.add_sliding_window_pattern([(i + 1) % 5 != 0 for i in range(layers)])
    writer.add_shared_kv_layers(shared)
    writer.add_activation_sparsity_scale(
        [Z if i < SPARSE_LAYERS else float("-inf") for i in range(layers)])
    writer.add_altup_active_idx(0)
    writer.add_altup_num_inputs(4)
    writer.add_embedding_length_per_layer_input(PLE_DIM)
    writer.add_final_logit_softcapping(30.0)
    add_vocabulary(writer)

    for name, (kind, shape, _) in tensors(layers, ffn):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        row_bytes = shape[-1] // block * size
        count = int(np.prod(shape[:-1], dtype=np.int64)) * row_bytes
        if block == 1:
            writer.add_tensor_info(name + ".weight", shape,
                                   np.dtype(np.float16 if kind == T.F16 else np.float32), count)
        else:
            writer.add_tensor_info(name + ".weight", (*shape[:-1], row_bytes), np.dtype(np.uint8),
                                   count, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, (_, _, make) in tensors(layers, ffn):
        writer.write_tensor_data(make())
    writer.close()


main()
