# SPDX-License-Identifier: Apache-2.0
"""Trains the default model on a CPU within a time budget.

    train.py --train T.npz --heldout H.npz --state STATE.pt --minutes 60 [--threads 2] [--seed 1]

Matrices are trained with Muon (momentum, then orthogonalised), everything else with Adam. Each step trains one slice:
the full widths, a narrower width in all layers, or widths drawn per layer, with or without the layers that can be left
out. The learning rate follows the clock: warm-up, flat, then linear to zero at the deadline, so that the run ends when
it should on a machine of any speed. STATE is written every few minutes and holds all that a further call needs to go on.
"""
import argparse
import csv
import math
import os
import time

import numpy as np
import torch

import model as m

ADAM_LR, MUON_LR = 4e-3, 0.02
WARM_UP, DECAY_FROM = 0.02, 0.45  # shares of the time budget


def pick_slice(c, rng):
    """(name of the kind, kept layers, widths)"""
    keep = [i for i in range(c.layers)]
    if rng.random() < 0.3:
        keep = [i for i in keep if i not in c.skip]
    u = rng.random()
    if u < 0.45:
        return "full", keep, [c.ffn] * len(keep)
    if u < 0.85:
        w = c.widths[0] if u < 0.62 else c.widths[1]
        return f"w{w}", keep, [w] * len(keep)
    return "mixed", keep, [int(rng.choice(c.widths)) for _ in keep]


def orthogonalise(g, steps=5):
    """Newton-Schulz iteration towards the nearest orthogonal matrix, batched."""
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    flip = x.shape[-2] > x.shape[-1]
    if flip:
        x = x.transpose(-2, -1)
    for _ in range(steps):
        a = x @ x.transpose(-2, -1)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.transpose(-2, -1) if flip else x


class Optimizer:
    def __init__(self, params):
        self.params = params
        # Small matrices, embeddings, vectors: Adam. The rest: Muon.
        self.muon = [k for k, v in params.items() if v.dim() == 2 and min(v.shape) >= 32 and "embed" not in k]
        self.adam = [k for k in params if k not in self.muon]
        self.state = {"step": 0, "mom": {k: torch.zeros_like(params[k]) for k in self.muon},
                      "m": {k: torch.zeros_like(params[k]) for k in self.adam}, "v": {k: torch.zeros_like(params[k]) for k in self.adam}}

    @torch.no_grad()
    def update(self, grads, scale):
        s = self.state
        s["step"] += 1
        t = s["step"]
        b1, b2 = 0.9, 0.98
        for k in self.adam:
            g, p = grads[k], self.params[k]
            if g is None:
                continue
            s["m"][k].lerp_(g, 1 - b1)
            s["v"][k].lerp_(g * g, 1 - b2)
            lr = ADAM_LR * scale
            if "router.weight" in k:
                lr *= 10.0  # starts at sqrt(hidden), so its steps are larger too
            p.addcdiv_(s["m"][k] / (1 - b1 ** t), (s["v"][k] / (1 - b2 ** t)).sqrt_().add_(1e-9), value=-lr)
        for k in self.muon:
            g, p = grads[k], self.params[k]
            if g is None:
                continue  # a layer that this slice leaves out
            mom = s["mom"][k].lerp_(g, 0.05)
            u = orthogonalise(g.lerp(mom, 0.95))
            p.mul_(1 - 0.02 * MUON_LR * scale)
            p.add_(u, alpha=-MUON_LR * scale * math.sqrt(max(1.0, p.shape[0] / p.shape[1])) * 0.5)


def load(path):
    z = np.load(path)
    return (torch.from_numpy(z["ids"].astype(np.int64)), torch.from_numpy(z["seg"].astype(np.int64)),
            torch.from_numpy(z["weight"]))


@torch.no_grad()
def evaluate(dec, data, keep, widths, rows):
    """(nats per token over all tokens, over the model's own tokens)"""
    ids, seg, weight = (x[:rows] for x in data)
    loss = torch.cat([dec.loss(ids[i:i + 4, :-1], seg[i:i + 4, :-1], ids[i:i + 4, 1:], keep, widths) for i in range(0, len(ids), 4)])
    w = weight[:, 1:].flatten()
    return (loss[w > 0]).mean().item(), (loss[w == 1]).mean().item()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("train", "heldout", "state"):
        ap.add_argument("--" + name, required=True)
    ap.add_argument("--minutes", type=float, default=60)
    ap.add_argument("--deadline", type=float, default=0, help="Unix time to end at, instead of --minutes")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--batch", type=int, default=4, help="rows per step")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--log", default="loss.csv")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch._dynamo.config.recompile_limit = 64
    c = m.Config()
    params = m.init_params(c, a.seed)
    elapsed_before, log = 0.0, []
    opt = Optimizer(params)
    if os.path.exists(a.state):
        st = torch.load(a.state)
        for k in params:
            params[k].copy_(st["params"][k])
        opt.state, elapsed_before, log = st["opt"], st["elapsed"], st["log"]
    for p in params.values():
        p.requires_grad_()
    dec = m.Decoder(c, params, compiled=True)
    plain = m.Decoder(c, params)
    train, held = load(a.train), load(a.heldout)
    rng = np.random.default_rng(a.seed * 1000 + opt.state["step"])
    order, at = rng.permutation(len(train[0])), 0
    names = list(params)
    start = time.time()
    budget = (a.deadline - start if a.deadline else a.minutes * 60) + elapsed_before
    saved = shown = start
    sums, tokens = [0.0, 0.0], 0

    def save():
        torch.save({"params": {k: v.detach() for k, v in params.items()}, "opt": opt.state, "log": log,
                    "elapsed": elapsed_before + time.time() - start}, a.state + ".new")
        os.replace(a.state + ".new", a.state)
        with open(a.log, "w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(["step", "seconds", "tokens", "slice", "train_loss", "heldout_full_loss"])
            w.writerows(log)

    total = log[-1][2] if log else 0
    while True:
        part = (elapsed_before + time.time() - start) / budget
        if part >= 1:
            break
        scale = min(1.0, part / WARM_UP + 0.02, (1 - part) / (1 - DECAY_FROM))
        kind, keep, widths = pick_slice(c, rng)
        if at + a.batch > len(order):
            order, at = rng.permutation(len(train[0])), 0
        ids, seg, weight = (x[order[at:at + a.batch]] for x in train)
        at += a.batch
        w = weight[:, 1:].flatten()
        loss = dec.loss(ids[:, :-1], seg[:, :-1], ids[:, 1:], keep, widths)
        mean = (loss * w).sum() / w.sum()
        grads = dict(zip(names, torch.autograd.grad(mean, [params[n] for n in names], allow_unused=True)))
        opt.update(grads, scale)
        total += int((seg >= 0).sum())
        if kind == "full":
            sums[0] += mean.item()
            sums[1] += 1
        now = time.time()
        if now - shown > 30:
            h = ""
            if now - saved > 240:
                h = round(evaluate(plain, held, list(range(c.layers)), [c.ffn] * c.layers, 4)[0], 4)
            log.append([opt.state["step"], round(elapsed_before + now - start), total, "full", round(sums[0] / max(1, sums[1]), 4), h])
            print(*log[-1], f"lr {scale:.3f}", f"{total / (elapsed_before + now - start):.0f} tokens/s", flush=True)
            sums = [0.0, 0.0]
            shown = time.time()
            if h != "":
                save()
                saved = time.time()
    save()
    print("done", opt.state["step"], "steps", total, "tokens", flush=True)


if __name__ == "__main__":
    main()
