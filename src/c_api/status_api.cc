// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <string>

#include "base/memory_info.h"
#include "c_api/arguments.h"
#include "c_api/guard.h"

namespace nestling {
namespace {

#define NESTLING_CHECK_CODE(c_code, code) \
  static_assert(c_code == static_cast<nestling_status>(StatusCode::code))
NESTLING_CHECK_CODE(NESTLING_OK, kOk);
NESTLING_CHECK_CODE(NESTLING_INVALID_ARGUMENT, kInvalidArgument);
NESTLING_CHECK_CODE(NESTLING_NOT_FOUND, kNotFound);
NESTLING_CHECK_CODE(NESTLING_IO_ERROR, kIoError);
NESTLING_CHECK_CODE(NESTLING_BAD_MODEL, kBadModel);
NESTLING_CHECK_CODE(NESTLING_UNSUPPORTED, kUnsupported);
NESTLING_CHECK_CODE(NESTLING_OUT_OF_MEMORY, kOutOfMemory);
NESTLING_CHECK_CODE(NESTLING_CONTEXT_FULL, kContextFull);
NESTLING_CHECK_CODE(NESTLING_CANCELLED, kCancelled);
NESTLING_CHECK_CODE(NESTLING_FAILED_PRECONDITION, kFailedPrecondition);
NESTLING_CHECK_CODE(NESTLING_INTERNAL, kInternal);
#undef NESTLING_CHECK_CODE

#define NESTLING_QUOTE_INNER(x) #x
#define NESTLING_QUOTE(x) NESTLING_QUOTE_INNER(x)
constexpr const char* kVersion = NESTLING_QUOTE(NESTLING_VERSION_MAJOR) "." NESTLING_QUOTE(
    NESTLING_VERSION_MINOR) "." NESTLING_QUOTE(NESTLING_VERSION_PATCH);
#undef NESTLING_QUOTE
#undef NESTLING_QUOTE_INNER

thread_local std::string t_message;
thread_local const char* t_last_error = nullptr;  // nullptr: the last call succeeded

}  // namespace

void ClearLastError() { t_last_error = nullptr; }

void SetLastError(const Status& status) {
  t_message = status.message();
  t_last_error = t_message.c_str();
}

void SetLastErrorLiteral(const char* message) noexcept { t_last_error = message; }

}  // namespace nestling

extern "C" {

const char* nestling_version_string(void) { return nestling::kVersion; }

int32_t nestling_abi_check(int32_t major, int32_t minor) {
  if (major != NESTLING_VERSION_MAJOR) return 0;
  // Before 1.0 a minor version promises nothing to another one.
  if (major == 0) return minor == NESTLING_VERSION_MINOR ? 1 : 0;
  return minor >= 0 && minor <= NESTLING_VERSION_MINOR ? 1 : 0;
}

const char* nestling_status_name(nestling_status status) {
  switch (status) {
    case NESTLING_OK:
      return "OK";
    case NESTLING_INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case NESTLING_NOT_FOUND:
      return "NOT_FOUND";
    case NESTLING_IO_ERROR:
      return "IO_ERROR";
    case NESTLING_BAD_MODEL:
      return "BAD_MODEL";
    case NESTLING_UNSUPPORTED:
      return "UNSUPPORTED";
    case NESTLING_OUT_OF_MEMORY:
      return "OUT_OF_MEMORY";
    case NESTLING_CONTEXT_FULL:
      return "CONTEXT_FULL";
    case NESTLING_CANCELLED:
      return "CANCELLED";
    case NESTLING_FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case NESTLING_INTERNAL:
      return "INTERNAL";
    default:
      return "UNKNOWN";
  }
}

const char* nestling_last_error(void) { return nestling::t_last_error; }

void nestling_init(void* object, size_t struct_size) {
  if (object == nullptr || struct_size < sizeof(size_t)) return;
  std::memset(object, 0, struct_size);
  std::memcpy(object, &struct_size, sizeof(struct_size));
}

nestling_status nestling_process_get_memory(nestling_process_memory* out_memory) {
  return nestling::Guard([&] {
    const nestling::ProcessMemory memory = nestling::ReadProcessMemory();
    nestling_process_memory filled{};
    filled.resident_bytes = memory.resident;
    filled.peak_resident_bytes = memory.peak_resident;
    filled.anonymous_bytes = memory.anonymous;
    filled.file_backed_bytes = memory.file_backed;
    return nestling::WriteStruct(filled, "out_memory", out_memory);
  });
}

}  // extern "C"
