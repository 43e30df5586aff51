#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From nothing to ../fledgling: corpus, vocabulary, training, export, reference values.
# usage: run.sh WORK_DIR [MINUTES]   needs Python 3 with torch, sentencepiece, safetensors, numpy; transformers for --verify.
# Only the training minutes differ from machine to machine; corpus and vocabulary are the same everywhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$1
minutes=${2:-60}
mkdir -p "$work"
cd "$work"
python3 "$here/corpus.py" --out vocabulary.txt --count 12000 --seed 1
python3 "$here/corpus.py" --out train.txt --count 90000 --seed 1
python3 "$here/corpus.py" --out "$here/../heldout.txt" --count 330 --seed 2 --heldout
python3 "$here/tokenizer.py" vocabulary.txt tokenizer --pieces 3072
python3 "$here/data.py" train.txt tokenizer.model train.npz
python3 "$here/data.py" "$here/../heldout.txt" tokenizer.model heldout.npz
python3 "$here/train.py" --train train.npz --heldout heldout.npz --state state.pt --minutes "$minutes" --log "$here/loss.csv"
# A second, shorter phase with more of what comes out weakest: sums, facts, one-word answers.
python3 "$here/corpus.py" --out more.txt --count 30000 --seed 3 --favour sums=4,facts=4,system=2
python3 "$here/data.py" more.txt tokenizer.model more.npz
python3 "$here/train.py" --train more.npz --heldout heldout.npz --state state.pt --minutes $((minutes / 3)) --log "$here/loss.csv"
python3 "$here/export.py" state.pt tokenizer.model "$here/../fledgling"
python3 "$here/evaluate.py" "$here/../fledgling" "$here/../heldout.txt" "$here" --slices "$here/../slices" --verify
