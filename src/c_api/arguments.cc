// SPDX-License-Identifier: Apache-2.0
#include "c_api/arguments.h"

namespace nestling {

Status RequireNotNull(const void* argument, const char* name) {
  if (argument == nullptr) return InvalidArgument(name, ": NULL");
  return OkStatus();
}

#define NESTLING_CHECK_PLE(c_mode, mode) \
  static_assert(c_mode == static_cast<nestling_ple_mode>(PleMode::mode))
NESTLING_CHECK_PLE(NESTLING_PLE_STREAM, kStream);
NESTLING_CHECK_PLE(NESTLING_PLE_RESIDENT, kResident);
NESTLING_CHECK_PLE(NESTLING_PLE_MMAP, kMmap);
#undef NESTLING_CHECK_PLE

Result<PleMode> ReadPleMode(nestling_ple_mode mode) {
  if (mode < NESTLING_PLE_STREAM || mode > NESTLING_PLE_MMAP) {
    return InvalidArgument("options.ple_mode: ", mode, ", want a NESTLING_PLE_ value");
  }
  return static_cast<PleMode>(mode);
}

Status CheckStructSize(size_t struct_size, size_t known_size, size_t alignment, const char* name) {
  if (struct_size < sizeof(size_t) || struct_size > kMaxStructSize ||
      struct_size % alignment != 0) {
    return InvalidArgument(name, ".struct_size: ", struct_size, ", want ", known_size,
                           "; NESTLING_INIT sets it");
  }
  return OkStatus();
}

Status ReadText(const char* text, size_t text_bytes, const char* name, std::string_view* out) {
  RETURN_IF_ERROR(RequireNotNull(text, name));
  if (text_bytes == NESTLING_NUL_TERMINATED) text_bytes = std::strlen(text);
  if (text_bytes > kMaxTextBytes) {
    return InvalidArgument(name, ": ", text_bytes, " bytes, want at most ", kMaxTextBytes);
  }
  *out = std::string_view(text, text_bytes);
  return OkStatus();
}

Status ReadTokens(const int32_t* tokens, size_t num_tokens, const char* name,
                  std::span<const int32_t>* out) {
  *out = {};
  if (num_tokens == 0) return OkStatus();
  RETURN_IF_ERROR(RequireNotNull(tokens, name));
  if (num_tokens > kMaxTokenCount) {
    return InvalidArgument("num_", name, ": ", num_tokens, ", want at most ", kMaxTokenCount);
  }
  *out = std::span(tokens, num_tokens);
  return OkStatus();
}

Status CheckCopyOut(const void* buffer, size_t capacity, const size_t* out_needed,
                    const char* needed_name) {
  RETURN_IF_ERROR(RequireNotNull(out_needed, needed_name));
  if (buffer == nullptr && capacity != 0) {
    return InvalidArgument("buffer: NULL, with a capacity of ", capacity);
  }
  return OkStatus();
}

Status CopyOutText(std::string_view text, char* buffer, size_t capacity, size_t* out_needed) {
  RETURN_IF_ERROR(CheckCopyOut(buffer, capacity, out_needed, "out_needed"));
  *out_needed = text.size() + 1;
  if (buffer == nullptr) return OkStatus();
  if (capacity < text.size() + 1) {
    if (capacity > 0) buffer[0] = '\0';
    return InvalidArgument("capacity: ", capacity, " bytes, want ", text.size() + 1);
  }
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  return OkStatus();
}

Status CopyOutTokens(std::span<const int32_t> tokens, int32_t* buffer, size_t capacity,
                     size_t* out_needed) {
  RETURN_IF_ERROR(CheckCopyOut(buffer, capacity, out_needed, "out_num_tokens"));
  *out_needed = tokens.size();
  if (buffer == nullptr) return OkStatus();
  if (capacity < tokens.size()) {
    return InvalidArgument("capacity: ", capacity, " tokens, want ", tokens.size());
  }
  std::copy(tokens.begin(), tokens.end(), buffer);
  return OkStatus();
}

}  // namespace nestling
