#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Sets up the machine, builds, and runs the main job on the default model: a prompt is answered.
# `scripts/demo.sh -p "..."` asks something else; all arguments go to `nestling run`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$repo/scripts/setup.sh"
cd "$repo"
run_quietly cmake --preset release
run_quietly cmake --build --preset release --target nestling_cli
model=models/fledgling.nest
if (($# == 0)); then
  set -- -p "Tell me a story about a cat." --temperature 0
fi
exec build/release/nestling run "$model" "$@"
