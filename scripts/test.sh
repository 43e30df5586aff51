#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Sets up the machine, builds and runs the tests. `scripts/test.sh asan` (or tsan, dev, arm64) uses
# another preset of CMakePresets.json. Further arguments go to ctest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

preset=${1:-release}
shift || true
"$repo/scripts/setup.sh" "$preset"
cd "$repo"
say "building ($preset)"
run_quietly cmake --preset "$preset"
run_quietly cmake --build --preset "$preset"
exec ctest --preset "$preset" "$@"
