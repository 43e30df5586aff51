#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Memory and start-up of a model, each a median of RUNS, settings that are compared in turn:
#
#   benchmarks/memory.sh MODEL.nest [peak] [warm] [cold] [cgroup] [start]
#
#   peak    where the pages of a 512-token prompt and 128 tokens go, context 4096
#   warm    PLE rows streamed against a resident table, page cache warm
#   cold    the same, the PLE table not in the page cache
#   cgroup  decode in a cgroup of LIMIT bytes, page cache included, against decode without one; root,
#           and a memory controller at /sys/fs/cgroup/memory (version 1) or /sys/fs/cgroup (2)
#   start   seconds to create an engine, and to the first token of 16; page cache warm and cold
#
# Environment: NESTLING (the tool; build/release/nestling), THREADS (2), RUNS (5), LIMIT (1700000000),
# WRAP (a command that runs each measurement, such as one that waits for a quiet machine).
set -euo pipefail

model=${1:?usage: benchmarks/memory.sh MODEL.nest [PART...]}
shift
parts=${*:-peak warm cold cgroup start}
tool=${NESTLING:-$(dirname "$0")/../build/release/nestling}
threads=${THREADS:-2}
runs=${RUNS:-5}
limit=${LIMIT:-1700000000}
wrap=${WRAP:-}

# The clean pages of the whole file, or of its PLE section, leave the page cache.
drop_model() { dd if="$model" iflag=nocache count=0 status=none; }
drop_ple() {
  local offset megabytes
  read -r offset megabytes < <("$tool" inspect "$model" | awk '$1 == "PLE" {print $3, int($2); exit}')
  dd if="$model" of=/dev/null bs=1M iflag=nocache,skip_bytes skip="$offset" count="$megabytes" \
    status=none
}

# bench FIELD OPTIONS...: a number of one run, by its name in the JSON report.
bench() {
  local field=$1
  shift
  $wrap "$tool" bench "$model" -r 1 -t "$threads" --no-limits -o json "$@" |
    sed -n "s/.*\"$field\": \([0-9.]*\).*/\1/p" | head -n 1
}

in_cgroup() {
  local group=/sys/fs/cgroup/memory file=memory.limit_in_bytes
  [[ -d $group ]] || group=/sys/fs/cgroup file=memory.max
  group+=/nestling-$$
  mkdir "$group"
  echo "$limit" > "$group/$file"
  (
    echo "$BASHPID" > "$group/cgroup.procs"
    "$@"
  )
  rmdir "$group"
}

median() { sort -g | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
# compare TITLE A B: medians of what two commands print, and A / B.
compare() {
  local a=() b=()
  for ((i = 0; i < runs; ++i)); do
    a+=("$($2)")
    b+=("$($3)")
  done
  printf '%-34s %8.2f %8.2f   ratio %.3f\n' "$1" "$(printf '%s\n' "${a[@]}" | median)" \
    "$(printf '%s\n' "${b[@]}" | median)" "$(paste <(printf '%s\n' "${a[@]}" | median) \
    <(printf '%s\n' "${b[@]}" | median) | awk '{print $1 / $2}')"
}

prefill_stream() { bench median -p 512 -n 0; }
prefill_resident() { bench median -p 512 -n 0 --ple resident; }
decode_stream() { bench median -p 0 -n 64; }
decode_resident() { bench median -p 0 -n 64 --ple resident; }
# No warm-up: it would read the rows. The weights stay in the page cache.
cold_prefill_stream() { drop_ple && bench median -p 512 -n 0 --no-warmup; }
cold_prefill_resident() { bench median -p 512 -n 0 --no-warmup --ple resident; }
cold_decode_stream() { drop_ple && bench median -p 0 -n 64 --no-warmup; }
cold_decode_resident() { bench median -p 0 -n 64 --no-warmup --ple resident; }
# The cgroup pays for pages that it reads itself.
decode_in_cgroup() { drop_model && in_cgroup decode_stream; }
create_warm() { bench load_ms -p 1 -n 0 --no-warmup; }
create_cold() { drop_model && create_warm; }
first_warm() { bench first_token_ms -p 16 -n 0 --no-warmup; }
first_cold() { drop_model && first_warm; }

for part in $parts; do
  case $part in
    peak) $wrap "$tool" memory "$model" -p 512 -n 128 --context 4096 -t "$threads" ;;
    warm)
      echo "tokens/s, page cache warm              stream resident"
      compare "prefill 512" prefill_stream prefill_resident
      compare "decode 64" decode_stream decode_resident
      ;;
    cold)
      echo "tokens/s, PLE table not in page cache  stream resident"
      compare "prefill 512" cold_prefill_stream cold_prefill_resident
      compare "decode 64" cold_decode_stream cold_decode_resident
      ;;
    cgroup)
      echo "tokens/s                               cgroup     free"
      compare "decode 64, $limit bytes" decode_in_cgroup decode_stream
      ;;
    start)
      echo "ms                                     warm page cache, cold"
      compare "engine and session" create_warm create_cold
      compare "first token of 16" first_warm first_cold
      ;;
    *) echo "unknown part \"$part\"" >&2 && exit 2 ;;
  esac
done
