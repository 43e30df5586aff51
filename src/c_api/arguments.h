// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "base/status.h"
#include "nestling/nestling.h"
#include "ple/ple_store.h"

// Checks of what C callers pass. Every message begins with the argument's name.

namespace nestling {

// Larger than any struct will ever be: a struct_size beyond is garbage, and is not read behind.
inline constexpr size_t kMaxStructSize = 4096;
// Lengths beyond are negative numbers in disguise; nothing behind the pointer is read.
inline constexpr size_t kMaxTextBytes = size_t{1} << 30;
inline constexpr size_t kMaxTokenCount = size_t{1} << 30;

Status RequireNotNull(const void* argument, const char* name);

Result<PleMode> ReadPleMode(nestling_ple_mode mode);

// Structs have pointer-sized alignment, so that no size that ever existed ends inside a field.
Status CheckStructSize(size_t struct_size, size_t known_size, size_t alignment, const char* name);

// Copies the caller's options over defaults of zero. An older caller's struct is shorter; a newer
// one's longer, which is fine as long as what we do not know is zero.
template <typename T>
Status ReadOptions(const T* options, const char* name, T* out) {
  static_assert(std::is_trivially_copyable_v<T>);
  *out = T{};
  if (options == nullptr) return OkStatus();
  const size_t size = options->struct_size;
  RETURN_IF_ERROR(CheckStructSize(size, sizeof(T), alignof(T), name));
  std::memcpy(out, options, std::min(size, sizeof(T)));
  const auto* bytes = reinterpret_cast<const unsigned char*>(options);
  for (size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      return InvalidArgument(name, ": sets a field that this version of the library (",
                             nestling_version_string(), ") does not know, at byte ", i);
    }
  }
  return OkStatus();
}

// Checks a struct that will be filled, before work is done that would be lost.
template <typename T>
Status CheckOutStruct(const char* name, const T* out) {
  RETURN_IF_ERROR(RequireNotNull(out, name));
  return CheckStructSize(out->struct_size, sizeof(T), alignof(T), name);
}

// Fills as much of the caller's struct as both sides know; what only he knows becomes zero.
template <typename T>
Status WriteStruct(T filled, const char* name, T* out) {
  static_assert(std::is_trivially_copyable_v<T>);
  RETURN_IF_ERROR(CheckOutStruct(name, out));
  const size_t size = out->struct_size;
  filled.struct_size = size;
  std::memset(out, 0, size);
  std::memcpy(out, &filled, std::min(size, sizeof(T)));
  return OkStatus();
}

// The view of a text argument.
Status ReadText(const char* text, size_t text_bytes, const char* name, std::string_view* out);

// The span of an array of ids; the ids themselves are the callee's to check.
Status ReadTokens(const int32_t* tokens, size_t num_tokens, const char* name,
                  std::span<const int32_t>* out);

// The copy-out convention of nestling.h.
Status CopyOutText(std::string_view text, char* buffer, size_t capacity, size_t* out_needed);
Status CopyOutTokens(std::span<const int32_t> tokens, int32_t* buffer, size_t capacity,
                     size_t* out_needed);
// Before work is done: the pointers that the convention needs.
Status CheckCopyOut(const void* buffer, size_t capacity, const size_t* out_needed,
                    const char* needed_name);

}  // namespace nestling
