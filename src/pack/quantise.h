// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "container/types.h"

namespace nestling {

// Conversion of f32 weights to the container's formats. A 4- or 8-bit group (32 inputs of a
// channel, or a whole channel) has one scale; its codes are round(value / scale). The scale is
// chosen to minimise the squared error of the group, by a search over clipping points and one
// least-squares step, never just from the largest magnitude. A group looks at its own values only,
// so that a MatFormer prefix has the same bytes as the same prefix of the whole model.
//
// Scales are normal numbers, and positive where XNNPACK reads them (row-major and transposed). In
// 4-bit tiles, neurons and PLE spans, which only our own kernels read, they may be negative: the
// codes -8..7 are not symmetric, and with the better sign the squared error is about 12 % lower. A
// group of zeros has scale 1. The result does not depend on the machine: the same additions in the
// same order everywhere.

// Elements and scales in the container's byte order (container/FORMAT.md). Reused between calls.
struct QuantisedPanel {
  std::vector<std::byte> elements;
  std::vector<std::byte> scales;
};

// Fails for NaN, infinity, and values that `dtype` cannot hold (f16 beyond 65504).
Status CheckValues(DType dtype, std::span<const float> values);

// The functions below want values that passed CheckValues.
// kRowMajor: `values` is [rows, row_length]. A q4b32 row is a multiple of 32, a 4-bit row is even.
void QuantiseRows(DType dtype, std::span<const float> values, size_t row_length,
                  QuantisedPanel* panel);

// kTiled, of a quantised type: `values` is [rows, row_length], whole tiles of one shell: the number
// of rows is a multiple of 16, row_length that of the shell and a multiple of 32.
void QuantiseTiles(DType dtype, std::span<const float> values, size_t row_length,
                   QuantisedPanel* panel);

// kNeuronRows and kNeuronColumns, f32, q8c and q4b32: `values` is [neurons, length], the vectors of
// whole neurons; length is a multiple of 32 unless f32.
void QuantiseNeurons(DType dtype, std::span<const float> values, size_t length,
                     QuantisedPanel* panel);

// kPleRows: `values` is [tokens, layers, ple_dim]; each span of ple_dim is followed by its scales.
void QuantisePleRows(DType dtype, std::span<const float> values, size_t ple_dim,
                     QuantisedPanel* panel);

// The scale of one output channel's inputs inside one shell; q8c and q4c only.
float ChannelScale(DType dtype, std::span<const float> values);

// kTransposed: `values` is [out, columns], a panel of columns (neurons) inside one shell. Elements
// come out as [columns, out]. q8c and q4c use `channel_scales`, [out] from ChannelScale over the
// whole shell, and write no scales; q4b32 (columns a multiple of 32) writes [columns / 32, out].
void QuantiseTransposed(DType dtype, std::span<const float> values, size_t columns,
                        std::span<const float> channel_scales, QuantisedPanel* panel);

}  // namespace nestling
