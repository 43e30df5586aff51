# SPDX-License-Identifier: Apache-2.0
"""Reference values of an exported folder, in float32: evaluate.py FOLDER HELDOUT.txt OUT_DIR [--slices DIR] [--verify]

Writes OUT_DIR/reference_ppl.json (perplexity of each slice on the held-out text) and OUT_DIR/reference_greedy.json (ids of
some prompts, their greedy continuation and the gap between the two best logits at each step); with --slices also the
slice files. --verify loads the folder with transformers, whole and sliced, and compares logits."""
import argparse
import json
import math
import os

import numpy as np
import sentencepiece as spm
import torch
from safetensors.torch import load_file

import data
import model as m

PROMPTS = ["Tell me a short story about a fox named Pip.", "What is 23 + 14?", "Translate to Vietnamese: The cat is black.",
           "Answer in one word.\n\nWhat is the capital of France?", "¿De qué color es el cielo?", "Who are you?"]


def read(folder):
    c = m.Config()
    p = {k.removeprefix("model."): v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
    p["embed_tokens.weight"] = p["embed_tokens.weight"][:c.text_vocab]
    return c, p


@torch.no_grad()
def perplexity(dec, conversations, keep, widths):
    """Each conversation by itself, from <bos>: (over all predicted tokens, over the model's turns, token count)."""
    total = {1.0: [0.0, 0], data.USER_WEIGHT: [0.0, 0]}
    for ids, weights in conversations:
        x = torch.tensor([ids])
        nll = dec.loss(x[:, :-1], torch.zeros_like(x[:, :-1]), x[:, 1:], keep, widths).double()
        for w, (_, _) in total.items():
            pick = torch.tensor(weights[1:]) == w
            total[w][0] += nll[pick].sum().item()
            total[w][1] += int(pick.sum())
    every = [sum(t[i] for t in total.values()) for i in (0, 1)]
    return math.exp(every[0] / every[1]), math.exp(total[1.0][0] / total[1.0][1]), every[1]


@torch.no_grad()
def greedy(dec, ids, count, keep, widths, stop):
    out, gaps = [], []
    for _ in range(count):
        logits = dec.logits(torch.tensor([ids + out]), keep, widths)[0, -1]
        top = logits.topk(2)
        out.append(top.indices[0].item())
        gaps.append(round((top.values[0] - top.values[1]).item(), 5))
        if out[-1] in stop:
            break
    return out, gaps


@torch.no_grad()
def verify(folder, dec, c):
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig
    ids = torch.randint(5, c.text_vocab, (2, 150), generator=torch.Generator().manual_seed(3))
    for name, (keep, widths) in m.slices(c).items():
        cfg = Gemma3nTextConfig.from_pretrained(folder)
        state = {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
        old = cfg.num_hidden_layers
        cfg.num_hidden_layers = len(keep)
        cfg.intermediate_size = list(widths)
        cfg.layer_types = [cfg.layer_types[i] for i in keep]
        cfg.activation_sparsity_pattern = [cfg.activation_sparsity_pattern[i] for i in keep]
        cfg.num_kv_shared_layers -= old - len(keep)
        cfg._attn_implementation = "eager"
        new = {}
        for k, v in state.items():
            parts = k.split(".")
            if parts[1] == "layers":
                i = int(parts[2])
                if i not in keep:
                    continue
                n = keep.index(i)
                if parts[3] == "mlp":
                    v = v[:, :widths[n]] if parts[4] == "down_proj" else v[:widths[n]]
                k = ".".join(parts[:2] + [str(n)] + parts[3:])
            elif "embed_tokens_per_layer" in k:
                v = v.view(-1, old, c.ple)[:, keep].flatten(1)
            elif "per_layer_model_projection" in k:
                v = v.view(old, c.ple, -1)[keep].flatten(0, 1)
            new[k] = v.contiguous()
        ref = Gemma3nForCausalLM(cfg).float().eval()
        missing, extra = ref.load_state_dict(new, strict=False)
        assert set(missing) <= {"lm_head.weight"} and not extra, (missing, extra)
        ref.tie_weights()
        a = ref(ids).logits
        b = dec.logits(ids, keep, widths)
        pad = (a[..., c.text_vocab:] - a[..., :1]).abs().max().item()
        print(f"{name}: max difference to transformers {(a[..., :c.text_vocab] - b).abs().max().item():.2e} at scale {b.std().item():.2f}, media rows {pad:.1e}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("folder")
    ap.add_argument("heldout")
    ap.add_argument("out")
    ap.add_argument("--slices")
    ap.add_argument("--verify", action="store_true")
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    c, p = read(a.folder)
    dec = m.Decoder(c, p)
    sp = spm.SentencePieceProcessor(model_file=os.path.join(a.folder, "tokenizer.model"))
    eot = sp.piece_to_id("<end_of_turn>")
    if a.verify:
        verify(a.folder, dec, c)
    named = m.slices(c)
    if a.slices:
        os.makedirs(a.slices, exist_ok=True)
        for name, (keep, widths) in named.items():
            with open(os.path.join(a.slices, name + ".json"), "w") as f:
                json.dump({"name": name, "skip_layers": [i for i in range(c.layers) if i not in keep], "ffn": widths}, f)
                f.write("\n")

    text = open(a.heldout, encoding="utf-8").read().split("<bos>")[1:]
    conversations = [data.encode(sp, t) for t in text]
    result = {"text": os.path.basename(a.heldout), "conversations": len(conversations),
              "note": "f32 arithmetic on the bf16 weights; each conversation by itself from <bos>; every token after <bos> counts", "slices": {}}
    for name, (keep, widths) in named.items():
        every, answers, count = perplexity(dec, conversations, keep, widths)
        result["tokens"] = count
        result["slices"][name] = {"perplexity": round(every, 5), "perplexity_of_answers": round(answers, 5), "layers": len(keep), "ffn": widths[0]}
        print(name, result["slices"][name], flush=True)
    with open(os.path.join(a.out, "reference_ppl.json"), "w") as f:
        json.dump(result, f, indent=2)
        f.write("\n")

    cases = []
    for q in PROMPTS:
        prompt = f"<start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n"
        ids, _ = data.encode(sp, prompt)
        for name in ("full", "half", "half-shallow", "quarter-shallow"):
            out, gaps = greedy(dec, ids, 120, *named[name], stop=(1, eot))
            print(f"[{name}] {q!r} -> {sp.decode([i for i in out if i != eot])!r} (least gap {min(gaps):.3f})", flush=True)
            cases.append({"slice": name, "prompt": q, "prompt_ids": ids, "greedy_ids": out, "top2_gap": gaps,
                          "text": sp.decode([i for i in out if i not in (1, eot)])})
    with open(os.path.join(a.out, "reference_greedy.json"), "w", encoding="utf-8") as f:
        f.write('{"note": "f32 arithmetic on the bf16 weights; the prompt is wrapped in the chat format", "cases": [\n')
        f.write(",\n".join(json.dumps(x, ensure_ascii=False) for x in cases) + "\n]}\n")


if __name__ == "__main__":
    main()
