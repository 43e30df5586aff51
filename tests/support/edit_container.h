// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/header_codec.h"
#include "container/types.h"

namespace nestling::testing {

using Bytes = std::vector<std::byte>;

Bytes ReadAllBytes(const std::string& path);
void WriteAllBytes(const std::string& path, const Bytes& bytes);

Preamble GetPreamble(const Bytes& file);
void SetPreamble(const Preamble& preamble, Bytes* file);

// Makes the preamble true again (header checksum, file length) after bytes were changed.
void Reseal(Bytes* file);

// Decodes the header, lets `edit` change it, puts it back with a valid checksum. The file must
// have room for it before its first section.
void EditHeader(const std::function<void(ContainerHeader&)>& edit, Bytes* file);

// Puts any bytes in the place of the header.
void ReplaceHeader(const Bytes& header, Bytes* file);

// Opens `file` as a container: the status of ContainerReader::Open.
Status OpenBytes(const Bytes& file);

}  // namespace nestling::testing
