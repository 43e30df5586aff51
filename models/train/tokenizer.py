# SPDX-License-Identifier: Apache-2.0
"""Trains the SentencePiece vocabulary: tokenizer.py CORPUS OUT_PREFIX [--pieces N]

Settings as in the Gemma family: BPE, identity normalisation, no dummy prefix, whitespace kept, digits split, byte
fallback, runs of newlines and of spaces as single pieces. Control pieces have the low ids."""
import argparse

import sentencepiece as spm

ap = argparse.ArgumentParser()
ap.add_argument("corpus")
ap.add_argument("prefix")
ap.add_argument("--pieces", type=int, default=3072)
a = ap.parse_args()

text = open(a.corpus, encoding="utf-8").read()
lines = []
for conversation in text.split("<bos>"):
    for line in conversation.replace("<end_of_turn>", "\n").replace("<start_of_turn>", "\n").split("\n"):
        if line and line not in ("user", "model"):
            lines.append(line)
# One word more, so that the role names are pieces of their own.
lines += ["user", "model"] * (len(lines) // 20)

# Letters that the small world may not need but a user may type: one line puts them into the alphabet.
letters = "".join(chr(i) for i in range(33, 127)) + (
    "àáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹçëîïûüñœÀÁÂÉÊÍÓÔÚĐƠƯ¿¡")
lines.append(" ".join(letters))
control = ["<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<start_of_audio>"]
runs = ["\n" * n for n in range(1, 9)] + ["\u2581" * n for n in range(2, 9)]
spm.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_prefix=a.prefix, vocab_size=a.pieces, model_type="bpe",
    pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>",
    control_symbols=control, user_defined_symbols=runs, byte_fallback=True, split_digits=True,
    normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True, character_coverage=1.0, num_threads=2, input_sentence_size=0,
    max_sentence_length=20000, hard_vocab_limit=True, minloglevel=1)
