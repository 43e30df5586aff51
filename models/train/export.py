# SPDX-License-Identifier: Apache-2.0
"""Writes a training state as a Hugging Face folder: export.py STATE.pt TOKENIZER.model OUT_DIR

bf16 weights with the names of Gemma3nForCausalLM. embed_tokens gets the vision and audio rows, copies of <pad>, as in the
published checkpoints."""
import argparse
import json
import os
import shutil

import sentencepiece as spm
import torch
from safetensors.torch import save_file

import model as m

# Gemma 3n's turns in our own words: system text opens the first user turn, roles alternate, the assistant is "model".
CHAT_TEMPLATE = """{{- bos_token -}}
{%- set turns = messages -%}
{%- set opening = '' -%}
{%- if turns and turns[0]['role'] == 'system' -%}
  {%- set given = turns[0]['content'] -%}
  {%- set opening = (given if given is string else given[0]['text']) + '\\n\\n' -%}
  {%- set turns = turns[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
  {%- if turn['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('The conversation must alternate user, assistant, user, ..., starting with user') -}}
  {%- endif -%}
  {{- '<start_of_turn>' + ('model' if turn['role'] == 'assistant' else 'user') + '\\n' -}}
  {%- if loop.first -%}{{- opening -}}{%- endif -%}
  {%- if turn['content'] is string -%}
    {{- turn['content'] | trim -}}
  {%- else -%}
    {%- for item in turn['content'] -%}
      {%- if item['type'] == 'image' -%}{{- '<image_soft_token>' -}}
      {%- elif item['type'] == 'audio' -%}{{- '<audio_soft_token>' -}}
      {%- elif item['type'] == 'text' -%}{{- item['text'] | trim -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {{- '<end_of_turn>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


def config(c):
    return {
        "architectures": ["Gemma3nForCausalLM"], "model_type": "gemma3n_text", "dtype": "bfloat16",
        "vocab_size": c.text_vocab + c.media_vocab, "vocab_size_per_layer_input": c.text_vocab,
        "hidden_size": c.hidden, "hidden_size_per_layer_input": c.ple, "intermediate_size": [c.ffn] * c.layers,
        "num_hidden_layers": c.layers, "num_kv_shared_layers": c.shared, "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads, "head_dim": c.head_dim, "sliding_window": c.window,
        "layer_types": ["full_attention" if c.is_full(i) else "sliding_attention" for i in range(c.layers)],
        "rope_parameters": {"full_attention": {"rope_theta": c.theta_global, "rope_type": "default"},
                            "sliding_attention": {"rope_theta": c.theta_local, "rope_type": "default"}},
        "activation_sparsity_pattern": [c.sparsity if i < c.sparse_layers else 0.0 for i in range(c.layers)],
        "altup_num_inputs": 4, "altup_active_idx": 0, "altup_correct_scale": True, "altup_coef_clip": 120.0,
        "laurel_rank": c.laurel, "final_logit_softcapping": c.softcap, "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": c.eps, "max_position_embeddings": c.max_positions, "attention_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "tie_word_embeddings": True, "use_cache": True,
        "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("state")
    ap.add_argument("tokenizer")
    ap.add_argument("out")
    a = ap.parse_args()
    c = m.Config()
    p = {k: v.detach().to(torch.bfloat16) for k, v in torch.load(a.state)["params"].items()}
    embed = p["embed_tokens.weight"]
    p["embed_tokens.weight"] = torch.cat((embed, embed[:1].expand(c.media_vocab, -1)))
    os.makedirs(a.out, exist_ok=True)
    save_file({"model." + k: v.contiguous() for k, v in p.items()}, os.path.join(a.out, "model.safetensors"), metadata={"format": "pt"})
    os.chmod(os.path.join(a.out, "model.safetensors"), 0o644)
    shutil.copyfile(a.tokenizer, os.path.join(a.out, "tokenizer.model"))

    sp = spm.SentencePieceProcessor(model_file=a.tokenizer)
    eot = sp.piece_to_id("<end_of_turn>")
    v = c.text_vocab
    # The ids beyond the vocabulary that have a name, laid out as in the real model.
    media = {v: "<end_of_image>", v + 1: "<image_soft_token>", v + 128: "<end_of_audio>", v + 129: "<audio_soft_token>"}
    added = {i: sp.id_to_piece(i) for i in range(9)} | media
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    more = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
            "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>"}

    def write(name, value):
        with open(os.path.join(a.out, name), "w", encoding="utf-8") as f:
            f.write(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    write("config.json", config(c))
    write("generation_config.json", {"do_sample": True, "temperature": 0.7, "top_k": 64, "top_p": 0.95, "bos_token_id": 2,
                                     "eos_token_id": [1, eot], "pad_token_id": 0})
    write("special_tokens_map.json", names | more)
    write("tokenizer_config.json", {
        "tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False,
        "model_max_length": c.max_positions, "sp_model_kwargs": None, "spaces_between_special_tokens": False, **names, **more,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                                          "special": True} for i, t in added.items()}})
    write("chat_template.jinja", CHAT_TEMPLATE)


if __name__ == "__main__":
    main()
