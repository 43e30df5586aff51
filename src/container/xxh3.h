// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace nestling {

inline uint64_t Xxh3(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

// XXH3-64 of [offset, offset + bytes) of a file, read through `read(offset, span) -> Status` in
// order and in pieces: memory does not depend on the length. `each(piece_bytes)` follows a piece.
template <typename Read, typename Each>
Result<uint64_t> Xxh3OfFile(uint64_t offset, uint64_t bytes, const Read& read, const Each& each) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(bytes, 1 << 20)));
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (uint64_t done = 0; done < bytes;) {
    const size_t piece = static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes - done));
    RETURN_IF_ERROR(read(offset + done, std::span(buffer.data(), piece)));
    XXH3_64bits_update(&state, buffer.data(), piece);
    done += piece;
    each(piece);
  }
  return XXH3_64bits_digest(&state);
}

}  // namespace nestling
