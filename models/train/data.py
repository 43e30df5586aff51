# SPDX-License-Identifier: Apache-2.0
"""Packs a corpus into rows of ids: data.py CORPUS TOKENIZER OUT.npz [--row 512]

Each conversation starts with <bos>; conversations are placed whole, first fit, so none is cut. Three arrays of [rows,
row + 1]: ids, seg (number of the conversation within the row; -1 is padding) and weight (1 where the token is the model's to
say, USER_WEIGHT where the user says it, 0 for padding and for the first token of a conversation)."""
import argparse
import re

import numpy as np
import sentencepiece as spm

USER_WEIGHT = 0.25
CONTROL = re.compile("(<start_of_turn>|<end_of_turn>)")


def encode(sp, conversation):
    """Control pieces by id, the text between them by the tokenizer. Returns (ids, weights)."""
    ids, weights = [sp.bos_id()], [0.0]
    mine = False
    for part in CONTROL.split(conversation):
        if not part:
            continue
        if CONTROL.fullmatch(part):
            new = [sp.piece_to_id(part)]
            own = mine and part == "<end_of_turn>"
            if part == "<end_of_turn>":
                mine = False
        else:
            new = sp.encode(part)
            own = mine
            if part.startswith("model\n"):
                head = len(sp.encode("model\n"))
                ids += new[:head]
                weights += [USER_WEIGHT] * head
                new, own, mine = new[head:], True, True
        ids += new
        weights += [1.0 if own else USER_WEIGHT] * len(new)
    return ids, weights


def pack(sp, conversations, row):
    rows, open_rows = [], []
    for text in conversations:
        ids, weights = encode(sp, text)
        if len(ids) > row + 1:
            continue
        for r in open_rows:
            if len(r[0]) + len(ids) <= row + 1:
                break
        else:
            r = ([], [], [], [0])
            rows.append(r)
            open_rows.append(r)
        r[0].extend(ids)
        r[1].extend([r[3][0]] * len(ids))
        r[2].extend(weights)
        r[3][0] += 1
        open_rows = [r for r in open_rows if len(r[0]) < row - 20][-40:]
    out = [np.zeros((len(rows), row + 1), t) for t in (np.int32, np.int16, np.float32)]
    out[1][:] = -1
    for i, r in enumerate(rows):
        for k in range(3):
            out[k][i, :len(r[k])] = r[k]
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("corpus")
    ap.add_argument("tokenizer")
    ap.add_argument("out")
    ap.add_argument("--row", type=int, default=512)
    a = ap.parse_args()
    sp = spm.SentencePieceProcessor(model_file=a.tokenizer)
    ids, seg, weight = pack(sp, open(a.corpus, encoding="utf-8").read().split("<bos>")[1:], a.row)
    np.savez(a.out, ids=ids, seg=seg, weight=weight)
    used = int((seg >= 0).sum())
    print(f"{len(ids)} rows, {used} tokens, filled {used / seg.size:.3f}, answers {(weight == 1).sum() / used:.3f}")


if __name__ == "__main__":
    main()
