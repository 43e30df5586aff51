// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "container/types.h"

namespace nestling {

// Conversion of f32 weights to the container's formats. A 4- or 8-bit group (32 inputs of a channel,
// or a whole channel) has one scale; its codes are round(value / scale). The scale is chosen to
// minimise the squared error of the group, by a search over clipping points and one least-squares
// step, never just from the largest magnitude. A group looks at its own values only, so that a
// MatFormer prefix has the same bytes as the same prefix of the whole model.
//
// Scales of matrices are positive and normal, as XNNPACK wants them; those of 4-bit PLE spans may
// be negative, which lowers their error (the codes -8..7 are not symmetric). A group of zeros has
// scale 1.
// The result does not depend on the machine: the same additions in the same order everywhere.

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

// Puts a panel of QuantiseRows into tiles: `row_length` is that of the whole shell, a multiple of
// 32, and the number of rows a multiple of 16. Scales of q8c stay as they are.
void ArrangeTiles(DType dtype, size_t row_length, QuantisedPanel* panel);

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
