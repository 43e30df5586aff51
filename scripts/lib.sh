# SPDX-License-Identifier: Apache-2.0
# Shell functions that the scripts share. Source it; it changes nothing by itself.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# run_quietly COMMAND...: no output, unless it fails; then the end of it.
run_quietly() {
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  if ((status)); then tail -n 40 "$log" >&2; fi
  rm -f "$log"
  return "$status"
}

# missing_packages LIST...: the packages of these lists that are not installed, one a line.
missing_packages() {
  local wanted
  wanted=$(sed 's/#.*//; /^[[:space:]]*$/d' "$@" | sort -u)
  # shellcheck disable=SC2086  # one argument a package
  comm -23 <(echo "$wanted") \
    <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^ii *//p' | sort -u)
}
