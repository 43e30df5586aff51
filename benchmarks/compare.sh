#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs llama.cpp's llama-bench and ours in turn on the same shapes and prints medians, spread and
# ratios. Both get the same threads, and each run is a process of its own, so that nothing that
# changes on the machine meanwhile is on one side only.
#
# usage: compare.sh MODEL.nest MODEL.gguf [LLAMA_BENCH [WORD...]]
#   LLAMA_BENCH...  the peer's command (default: $LLAMA_BENCH, else llama-bench)
# environment:
#   NESTLING        our tool (default: build/release/nestling beside this folder)
#   COMPARE_RUNS    runs of each row (default 5)
#   COMPARE_ROWS    any of: prefill decode depth busy (default all). `busy` is decode while one
#                   process per core does nothing but compute. `depth` makes the peer prefill 4096
#                   tokens in every run: minutes.
#   THREADS         of both (default: one per core)
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n 's/^# \{0,1\}//; 6,15p' "$0" >&2
  exit 2
fi
nest=$1 gguf=$2
shift 2
if [ $# -gt 0 ]; then peer=("$@"); else read -ra peer <<<"${LLAMA_BENCH:-llama-bench}"; fi
tool=${NESTLING:-$(dirname "$0")/../build/release/nestling}
runs=${COMPARE_RUNS:-5}
threads=${THREADS:-$(nproc)}
folder=$(mktemp -d)
busy=()
stop_busy() {
  for pid in "${busy[@]}"; do kill "$pid" 2>/dev/null || true; done
  busy=()
}
trap 'stop_busy; rm -rf "$folder"' EXIT

# Prints the command's output and appends its peak resident kilobytes, those of its largest
# process, to FILE.
with_peak() {  # FILE COMMAND...
  python3 - "$@" <<'PYTHON'
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
if done.returncode != 0:
    sys.exit(f"{sys.argv[2]}: {done.stderr.decode(errors='replace').strip()[-500:]}")
sys.stdout.buffer.write(done.stdout)
with open(sys.argv[1], "a") as file:
    file.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}\n")
PYTHON
}
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }  # of a JSON line

# One row: both in turn, tokens/s to $folder/NAME.{ours,peer}.
run_row() {  # NAME ARGUMENTS...
  local name=$1 i
  shift
  for ((i = 0; i < runs; ++i)); do
    with_peak "$folder/$name.memory.peer" "${peer[@]}" -m "$gguf" -t "$threads" -r 1 -o jsonl "$@" |
      number avg_ts >>"$folder/$name.peer"
    with_peak "$folder/$name.memory.ours" "$tool" bench "$nest" -t "$threads" -r 1 --no-limits -o jsonl "$@" |
      number tokens_per_second >>"$folder/$name.ours"
  done
}

median() { sort -g "$1" | awk '{v[NR] = $1} END {print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2}'; }
spread() { sort -g "$1" | awk 'NR == 1 {low = $1} END {printf "%.4g-%.4g", low, $1}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
print_row() {  # TITLE NAME
  local ours peers
  ours=$(median "$folder/$2.ours") peers=$(median "$folder/$2.peer")
  printf '| %s | %.4g (%s) | %.4g (%s) | %s |\n' "$1" "$ours" "$(spread "$folder/$2.ours")" \
    "$peers" "$(spread "$folder/$2.peer")" "$(ratio "$ours" "$peers")"
}
print_share() {  # TITLE NAME: of undisturbed decode
  [ -e "$folder/decode.ours" ] || return 0
  printf '| %s | %s | %s | |\n' "$1" \
    "$(ratio "$(median "$folder/$2.ours")" "$(median "$folder/decode.ours")")" \
    "$(ratio "$(median "$folder/$2.peer")" "$(median "$folder/decode.peer")")"
}

printf '%s threads, medians of %s runs (lowest-highest)\n\n' "$threads" "$runs"
printf '| | nestling | peer | ratio |\n|---|---|---|---|\n'
for row in ${COMPARE_ROWS:-prefill decode depth busy}; do
  case $row in
    prefill)
      run_row prefill -p 512 -n 0
      print_row "prefill 512, tokens/s" prefill
      print_row "peak resident, kB" prefill.memory
      ;;
    decode)
      run_row decode -p 0 -n 128
      print_row "decode 128, tokens/s" decode
      ;;
    depth)
      run_row depth -p 0 -n 128 -d 4096
      print_row "decode 128 at depth 4096, tokens/s" depth
      print_share "of decode at depth 0" depth
      ;;
    busy)
      for ((i = 0; i < $(nproc); ++i)); do
        (while :; do :; done) &
        busy+=($!)
      done
      run_row busy -p 0 -n 32
      stop_busy
      print_row "decode 32, one busy process per core, tokens/s" busy
      print_share "of undisturbed decode" busy
      ;;
    *)
      echo "compare.sh: no row \"$row\"" >&2
      exit 2
      ;;
  esac
done
