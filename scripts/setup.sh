#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian machine ready to build and test Nestling: installs the missing packages of debian-packages.txt (as
# root), then builds the pinned libraries (third_party/build.sh; once, about 5 minutes on 2 cores). Does nothing, and
# takes less than a second, when all of it is there.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command -v dpkg-query >/dev/null ||
  die "not a Debian system: install the equivalents of scripts/debian-packages.txt, then run third_party/build.sh"

mapfile -t missing < <(missing_packages)
if ((${#missing[@]})); then
  if ((EUID)); then
    say "missing Debian packages; as root, run:"
    say "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  run_quietly apt-get -q update
  run_quietly apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}"
fi

exec "$repo/third_party/build.sh"
