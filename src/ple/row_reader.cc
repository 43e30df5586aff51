// SPDX-License-Identifier: Apache-2.0
#include "ple/row_reader.h"

#include <cerrno>
#include <cstring>

namespace nestling {
namespace {

// Interruptions in a row after which a read is given up: far beyond what signals can do.
constexpr unsigned kMaxRetries = 1000;

}  // namespace

bool Advance(ReadRequest& request, int64_t result, const File& file, unsigned* retries,
             Status* status) {
  if (result > 0) {
    const size_t done = static_cast<size_t>(result);
    request.offset += done;
    request.out += done;
    request.bytes -= done;
    *retries = 0;
    return request.bytes == 0;
  }
  const uint64_t at = request.offset - file.start();
  if (result == 0) {
    *status = IoError("PLE table: \"", file.name(), "\" ended at ", at, " bytes, wanted ",
                      at + request.bytes, ": truncated after it was opened?");
    return true;
  }
  // ECANCELED: the thread that had asked for the read is gone.
  if ((result == -EINTR || result == -EAGAIN || result == -ECANCELED) && ++*retries < kMaxRetries) {
    return false;
  }
  *status = IoError("PLE table: cannot read ", request.bytes, " bytes at ", at, " of \"",
                    file.name(), "\": ", std::strerror(static_cast<int>(-result)));
  return true;
}

}  // namespace nestling
