# SPDX-License-Identifier: Apache-2.0
"""The text decoder of Gemma 3n in miniature, written for training on a CPU.

Arithmetic and tensor names follow Gemma3nForCausalLM. What differs is how it is trained: every call names a *slice*, a
list of kept layers and their FFN widths, so that the nested sub-models learn together (MatFormer). A slice uses the
first rows of gate and up and the first columns of down; a layer that is left out takes its PLE block with it.

One function computes one layer and gets its weights as arguments, so that torch.compile builds one graph per kind of
layer and width, not one per layer.
"""
import dataclasses
import math
import statistics

import torch
import torch.nn.functional as F


@dataclasses.dataclass(frozen=True)
class Config:
    text_vocab: int = 3072        # pieces of the tokenizer; the vision and audio ranges follow
    media_vocab: int = 256        # 128 vision ids, 128 audio ids: rows that copy <pad>
    hidden: int = 192
    layers: int = 12
    shared: int = 6               # last layers without keys and values of their own
    period: int = 3               # every period-th layer attends to everything
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    ffn: int = 512
    widths: tuple = (128, 256, 512)
    skip: tuple = (6, 7, 8)       # one whole period of shared layers, as E2B leaves out of E4B
    sparse_layers: int = 3
    sparsity: float = 0.95
    ple: int = 32
    laurel: int = 32
    window: int = 64
    eps: float = 1e-6
    softcap: float = 30.0
    theta_global: float = 1e6
    theta_local: float = 1e4
    max_positions: int = 4096

    @property
    def first_shared(self):
        return self.layers - self.shared

    def is_full(self, i):
        return (i + 1) % self.period == 0

    def kv_source(self, i):
        """The layer whose keys and values layer i reads."""
        if i < self.first_shared:
            return i
        return max(j for j in range(self.first_shared) if self.is_full(j) == self.is_full(i))

    def z(self, i):
        """Cut-off of the gaussian top-k in standard deviations; 0 for a dense layer."""
        return statistics.NormalDist().inv_cdf(self.sparsity) if i < self.sparse_layers else 0.0


LAYER_KEYS = (
    "input_layernorm.weight", "post_attention_layernorm.weight", "pre_feedforward_layernorm.weight",
    "post_feedforward_layernorm.weight", "post_per_layer_input_norm.weight",
    "self_attn.q_proj.weight", "self_attn.o_proj.weight", "self_attn.q_norm.weight",
    "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    "altup.modality_router.weight", "altup.router_norm.weight", "altup.prediction_coefs.weight",
    "altup.correction_coefs.weight", "altup.correct_output_scale",
    "laurel.linear_left.weight", "laurel.linear_right.weight", "laurel.post_laurel_norm.weight",
    "per_layer_input_gate.weight", "per_layer_projection.weight")
KV_KEYS = ("self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_norm.weight")


def init_params(c, seed):
    """Fresh weights by Hugging Face name (without the leading `model.`), embed_tokens with the text rows only."""
    g = torch.Generator().manual_seed(seed)

    def normal(rows, cols, gain=1.0):
        return torch.randn(rows, cols, generator=g) * (gain / math.sqrt(cols))

    d, qd, kd = c.hidden, c.heads * c.head_dim, c.kv_heads * c.head_dim
    one = lambda n, v=1.0: torch.full((n,), float(v))
    p = {"embed_tokens.weight": normal(c.text_vocab, d),
         "embed_tokens_per_layer.weight": normal(c.text_vocab, c.layers * c.ple),
         "per_layer_model_projection.weight": normal(c.layers * c.ple, d),
         "per_layer_projection_norm.weight": one(c.ple),
         "norm.weight": one(d)}
    for k in range(3):
        p[f"altup_projections.{k}.weight"] = torch.eye(d) + normal(d, d, 0.3)
        p[f"altup_unembed_projections.{k}.weight"] = torch.eye(d) + normal(d, d, 0.3)
    for i in range(c.layers):
        w = {"input_layernorm.weight": one(d), "post_attention_layernorm.weight": one(d, 0.5),
             "pre_feedforward_layernorm.weight": one(d), "post_feedforward_layernorm.weight": one(d, 0.5),
             "post_per_layer_input_norm.weight": one(d, 0.3),
             # No 1/sqrt(head_dim) in the attention: its root, twice, is where the two norms start.
             "self_attn.q_norm.weight": one(c.head_dim, c.head_dim ** -0.25),
             "self_attn.q_proj.weight": normal(qd, d), "self_attn.o_proj.weight": normal(d, qd),
             "mlp.gate_proj.weight": normal(c.ffn, d), "mlp.up_proj.weight": normal(c.ffn, d),
             "mlp.down_proj.weight": normal(d, c.ffn),
             # The router sees its input times 1/hidden, so its weights start at sqrt(hidden).
             "altup.modality_router.weight": torch.randn(4, d, generator=g) * math.sqrt(d),
             "altup.router_norm.weight": one(d),
             "altup.prediction_coefs.weight": torch.randn(16, 4, generator=g) * 0.02,
             "altup.correction_coefs.weight": torch.randn(4, 4, generator=g) * 0.02,
             "altup.correct_output_scale": one(d),
             "laurel.linear_left.weight": normal(c.laurel, d), "laurel.linear_right.weight": normal(d, c.laurel),
             "laurel.post_laurel_norm.weight": one(d, 0.3),
             "per_layer_input_gate.weight": normal(c.ple, d), "per_layer_projection.weight": normal(d, c.ple)}
        if i < c.first_shared:
            w["self_attn.k_proj.weight"] = normal(kd, d)
            w["self_attn.v_proj.weight"] = normal(kd, d)
            w["self_attn.k_norm.weight"] = one(c.head_dim, c.head_dim ** -0.25)
        p.update({f"layers.{i}.{k}": v for k, v in w.items()})
    return p


def rms(x, w, eps):
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if w is None else y * w


def rope(x, cos, sin):
    """x: [B, T, H, head_dim]; cos, sin: [T, 1, head_dim / 2]; pair (i, i + head_dim / 2)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attend(c, q, k, v, mask):
    """q: [B, H, T, head_dim]; k, v: [B, KV, T, head_dim]; returns [B, T, H * head_dim]. mask: [B, 1, T, T] additive, or
    [B, 1, T / window, window, 2 * window]: then a block of queries meets its own block of keys and the one before."""
    b, heads, t, hd = q.shape
    if mask.dim() == 5:
        n = t // c.window

        def blocks(x):
            x = x.reshape(b, c.kv_heads, n, c.window, hd)
            return torch.cat((F.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0)), x), 3)

        q = q.reshape(b, c.kv_heads, heads // c.kv_heads, n, c.window, hd).transpose(2, 3)
        rows = q.reshape(b, c.kv_heads, n, -1, hd)
        s = torch.matmul(rows, blocks(k).transpose(-1, -2)).view(b, c.kv_heads, n, -1, c.window, 2 * c.window)
        s = torch.softmax(s + mask[:, :, :, None], -1).view(b, c.kv_heads, n, -1, 2 * c.window)
        o = torch.matmul(s, blocks(v)).view(b, c.kv_heads, n, -1, c.window, hd)
        return o.permute(0, 2, 4, 1, 3, 5).reshape(b, t, heads * hd)
    rows = q.reshape(b, c.kv_heads, -1, hd)
    s = torch.matmul(rows, k.transpose(-1, -2)).view(b, c.kv_heads, -1, t, t)
    s = torch.softmax(s + mask[:, :, None], -1).view(b, c.kv_heads, -1, t)
    o = torch.matmul(s, v).view(b, heads, t, hd)
    return o.transpose(1, 2).reshape(b, t, heads * hd)


def layer(c, z, width, h, ple, cos, sin, mask, kv, w, wkv):
    """One decoder layer. h: four streams [B, T, D]; ple: [B, T, P]; mask: additive [B, 1, T, T]; kv: None, or (K, V)
    of the source layer. Returns the new streams and this layer's (K, V)."""
    (n_in, n_attn, n_pre, n_post, n_ple, wq, wo, nq, wg, wu, wd, router, n_router, predict, correct, out_scale,
     left, right, n_laurel, ple_gate, ple_proj) = w
    b, t, d = h[0].shape
    e = c.eps

    def route(x):
        return torch.tanh(F.linear(rms(x, n_router, e), router) * (1.0 / d))

    coef = F.linear(route(h[0]), predict)
    pred = []
    for i in range(4):
        s = h[i]
        for k in range(4):
            s = s + coef[..., 4 * i + k:4 * i + k + 1] * h[k]
        pred.append(s)

    x = rms(pred[0], n_in, e)
    lau = x + rms(F.linear(F.linear(x, left), right), n_laurel, e)

    q = rope(rms(F.linear(x, wq).view(b, t, c.heads, c.head_dim), nq, e), cos, sin).transpose(1, 2)
    if kv is None:
        wk, wv, nk = wkv
        k = rope(rms(F.linear(x, wk).view(b, t, c.kv_heads, c.head_dim), nk, e), cos, sin).transpose(1, 2)
        v = rms(F.linear(x, wv).view(b, t, c.kv_heads, c.head_dim), None, e).transpose(1, 2)
    else:
        k, v = kv
    att = attend(c, q, k, v, mask)
    att = rms(F.linear(att, wo), n_attn, e)

    u = (pred[0] + att + lau) * math.sqrt(0.5)
    y = rms(u, n_pre, e)
    gate = F.linear(y, wg[:width])
    if z > 0:
        mean = gate.mean(-1, keepdim=True)
        std = (gate - mean).square().mean(-1, keepdim=True).add(1e-20).sqrt()
        gate = torch.relu(gate - (mean + z * std))
    y = F.linear(F.gelu(gate, approximate="tanh") * F.linear(y, wu[:width]), wd[:, :width])
    act = u + rms(y, n_post, e)

    gain = F.linear(route(act), correct) + 1.0
    delta = act - pred[0]
    out = [pred[i] + gain[..., i:i + 1] * delta for i in range(4)]
    p = F.gelu(F.linear(out[0] * out_scale, ple_gate), approximate="tanh") * ple
    p = rms(F.linear(p, ple_proj), n_ple, e)
    return (out[0], out[1] + p, out[2] + p, out[3] + p), (k, v)


def match_magnitude(x, m):
    return x * (m / x.square().mean(-1, keepdim=True).clamp_min(1e-5).sqrt())


def ple_mix(c, a, b, w_norm):
    return (rms(b * c.hidden ** -0.5, w_norm, c.eps) + a * math.sqrt(c.ple)) * math.sqrt(0.5)


def spread(c, e, p0, p1, p2):
    m = e.square().mean(-1, keepdim=True).sqrt()
    return (e,) + tuple(match_magnitude(F.linear(e, p), m) for p in (p0, p1, p2))


def merge(c, h, p0, p1, p2, w_norm):
    m = h[0].square().mean(-1, keepdim=True).sqrt()
    o = h[0]
    for x, p in zip(h[1:], (p0, p1, p2)):
        o = o + match_magnitude(F.linear(x, p), m)
    return rms(o * 0.25, w_norm, c.eps)


def token_loss(c, o, embed, target):
    """Negative log-likelihood per token [N]. The media rows copy <pad>, so they only raise its share of the sum."""
    logits = c.softcap * torch.tanh(F.linear(o, embed) * (1.0 / c.softcap))
    pad = logits[:, :1] + math.log(c.media_vocab + 1.0)
    top = logits.amax(-1, keepdim=True).detach()
    total = (logits[:, 1:] - top).exp().sum(-1, keepdim=True) + (pad - top).exp()
    return (total.log() + top - logits.gather(1, target[:, None])).squeeze(1)


class Decoder:
    def __init__(self, c, params, compiled=False):
        self.c, self.p = c, params
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.layer, self.ple_mix, self.spread, self.merge, self.token_loss = map(
            wrap, (layer, ple_mix, spread, merge, token_loss))
        self.z = [c.z(i) for i in range(c.layers)]
        self.ropes = {}

    def rope_table(self, t, full):
        key = (t, full)
        if key not in self.ropes:
            half = self.c.head_dim // 2
            theta = self.c.theta_global if full else self.c.theta_local
            inv = theta ** (-torch.arange(half, dtype=torch.float64) / half)
            angle = (torch.arange(t, dtype=torch.float64)[:, None] * inv).float()
            self.ropes[key] = (angle.cos()[:, None], angle.sin()[:, None])
        return self.ropes[key]

    def masks(self, seg):
        """(sliding, full) additive masks; the sliding one in blocks where the row length allows."""
        w = self.c.window
        b, t = seg.shape
        pos = torch.arange(t)
        visible = (pos[:, None] >= pos) & (seg[:, :, None] == seg[:, None, :])
        full = torch.where(visible, 0.0, -1e9)[:, None]
        near = torch.where(visible & (pos[:, None] - pos < w), 0.0, -1e9)
        if t % w:
            return near[:, None], full
        blocks = torch.full((b, t // w, w, 2 * w), -1e9)
        for n in range(t // w):
            rows = near[:, n * w:(n + 1) * w]
            blocks[:, n, :, w:] = rows[:, :, n * w:(n + 1) * w]
            if n:
                blocks[:, n, :, :w] = rows[:, :, (n - 1) * w:n * w]
        return blocks[:, None], full

    def hidden(self, ids, seg, keep, widths):
        """ids, seg: [B, T] (seg numbers the conversations packed into a row); keep: layer numbers; widths: one each."""
        c, p = self.c, self.p
        b, t = ids.shape
        masks = self.masks(seg)
        e = F.embedding(ids, p["embed_tokens.weight"]) * math.sqrt(c.hidden)
        ple_rows = F.embedding(ids, p["embed_tokens_per_layer.weight"]).view(b, t, c.layers, c.ple)
        ple_proj = F.linear(e, p["per_layer_model_projection.weight"]).view(b, t, c.layers, c.ple)
        ple = self.ple_mix(c, ple_rows, ple_proj, p["per_layer_projection_norm.weight"]).unbind(2)
        h = self.spread(c, e, *(p[f"altup_projections.{k}.weight"] for k in range(3)))
        kv = {}
        for i, width in zip(keep, widths):
            full = c.is_full(i)
            own = i < c.first_shared
            w = [p[f"layers.{i}.{k}"] for k in LAYER_KEYS]
            wkv = [p[f"layers.{i}.{k}"] for k in KV_KEYS] if own else None
            cos, sin = self.rope_table(t, full)
            h, new = self.layer(c, self.z[i], width, h, ple[i], cos, sin, masks[full],
                                None if own else kv[c.kv_source(i)], w, wkv)
            if own:
                kv[i] = new
        return self.merge(c, h, *(p[f"altup_unembed_projections.{k}.weight"] for k in range(3)), p["norm.weight"])

    def loss(self, ids, seg, target, keep, widths):
        o = self.hidden(ids, seg, keep, widths)
        return self.token_loss(self.c, o.flatten(0, 1), self.p["embed_tokens.weight"], target.flatten())

    def logits(self, ids, keep, widths):
        """ids: [B, T]; returns [B, T, text_vocab]."""
        o = self.hidden(ids, torch.zeros_like(ids), keep, widths)
        return self.c.softcap * torch.tanh(F.linear(o, self.p["embed_tokens.weight"]) / self.c.softcap)


def slices(c):
    """The named sub-models, largest first: name -> (kept layers, widths)."""
    every = list(range(c.layers))
    some = [i for i in every if i not in c.skip]
    result = {}
    for name, width in zip(("full", "half", "quarter"), sorted(c.widths, reverse=True)):
        result[name] = (every, [width] * len(every))
        result[name + "-shallow"] = (some, [width] * len(some))
    return result
