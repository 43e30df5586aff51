// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "ple/row_reader.h"

namespace nestling {

// Linux's io_uring, without a library. kUnsupported where the kernel, its version or a sandbox
// does not offer it. `file` and `calls` are borrowed.
Result<std::unique_ptr<RowReader>> CreateIoUringReader(const File& file, StorageCalls& calls);

}  // namespace nestling
