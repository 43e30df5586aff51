#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a Debian machine ready to build and test Nestling: installs the missing packages of debian-packages.txt (as
# root), then builds the pinned libraries (third_party/build.sh; once, about 5 minutes on 2 cores). Does nothing, and
# takes less than a second, when all of it is there.
#
# `scripts/setup.sh arm64` does that for a preset that cross-compiles: with the packages of debian-packages-arm64.txt
# too, and the libraries for toolchain-arm64.cmake. A preset that has no such files needs nothing of its own.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

preset=${1:-release}
package_lists=("$repo/scripts/debian-packages.txt")
if [[ -f $repo/scripts/debian-packages-$preset.txt ]]; then
  package_lists+=("$repo/scripts/debian-packages-$preset.txt")
fi
build_arguments=()
if [[ -f $repo/scripts/toolchain-$preset.cmake ]]; then
  build_arguments+=(--toolchain "$repo/scripts/toolchain-$preset.cmake")
fi

command -v dpkg-query >/dev/null ||
  die "not a Debian system: install the equivalents of ${package_lists[*]}, then run third_party/build.sh"

mapfile -t missing < <(missing_packages "${package_lists[@]}")
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

exec "$repo/third_party/build.sh" "${build_arguments[@]}"
