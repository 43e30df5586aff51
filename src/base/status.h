// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

namespace nestling {

// Equal to nestling_status in the public header (static_assert-ed in c_api).
enum class StatusCode : int32_t {
  kOk = 0,
  kInvalidArgument = 1,  // the caller passed something that no state makes valid
  kNotFound = 2,         // a file, a tensor, a slice name
  kIoError = 3,          // the operating system said no
  kBadModel = 4,         // a file that is damaged, hostile or not what it says it is
  kUnsupported = 5,      // well formed, but this version cannot run it
  kOutOfMemory = 6,      // memory or the memory budget
  kContextFull = 7,      // more tokens than the context has room for
  kCancelled = 8,
  kFailedPrecondition = 9,  // a valid call in the wrong state
  kInternal = 10,
};

// A code and, on failure, a message that says what, where, found and wanted. Success costs one
// null pointer's worth of string.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return Status(); }

// Concatenates anything that an ostream prints.
template <typename... Parts>
std::string StrCat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

template <typename... Parts>
Status InvalidArgument(const Parts&... parts) {
  return Status(StatusCode::kInvalidArgument, StrCat(parts...));
}
template <typename... Parts>
Status NotFound(const Parts&... parts) {
  return Status(StatusCode::kNotFound, StrCat(parts...));
}
template <typename... Parts>
Status IoError(const Parts&... parts) {
  return Status(StatusCode::kIoError, StrCat(parts...));
}
template <typename... Parts>
Status BadModel(const Parts&... parts) {
  return Status(StatusCode::kBadModel, StrCat(parts...));
}
template <typename... Parts>
Status Unsupported(const Parts&... parts) {
  return Status(StatusCode::kUnsupported, StrCat(parts...));
}
template <typename... Parts>
Status OutOfMemory(const Parts&... parts) {
  return Status(StatusCode::kOutOfMemory, StrCat(parts...));
}
template <typename... Parts>
Status ContextFull(const Parts&... parts) {
  return Status(StatusCode::kContextFull, StrCat(parts...));
}
template <typename... Parts>
Status Cancelled(const Parts&... parts) {
  return Status(StatusCode::kCancelled, StrCat(parts...));
}
template <typename... Parts>
Status FailedPrecondition(const Parts&... parts) {
  return Status(StatusCode::kFailedPrecondition, StrCat(parts...));
}
template <typename... Parts>
Status Internal(const Parts&... parts) {
  return Status(StatusCode::kInternal, StrCat(parts...));
}

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit by design

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return *std::move(value_); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace nestling

#define NESTLING_CONCAT_INNER(a, b) a##b
#define NESTLING_CONCAT(a, b) NESTLING_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expression)                                \
  do {                                                             \
    ::nestling::Status nestling_status_value = (expression);       \
    if (!nestling_status_value.ok()) return nestling_status_value; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, F()): x is the value of the Result that F returns.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_IMPL(NESTLING_CONCAT(nestling_result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_IMPL(result, declaration, expression) \
  auto result = (expression);                                  \
  if (!result.ok()) return result.status();                    \
  declaration = std::move(result).value()

// Own bugs only, never input: compiled out of release builds.
#ifdef NDEBUG
#define NESTLING_DCHECK(condition) \
  do {                             \
  } while (false && (condition))
#else
#include <cassert>
#define NESTLING_DCHECK(condition) assert(condition)
#endif
