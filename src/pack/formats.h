// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "container/header_fields.h"
#include "container/types.h"
#include "model/tensor_names.h"
#include "pack/tensor_source.h"

namespace nestling {

// The formats that a user asks for; what he leaves out follows from `quant`.
struct FormatOptions {
  DType quant = DType::kQ4B32;       // of the decoder's matrices: f32, q8c, q4c, q4b32
  std::optional<DType> ple_quant;    // of the PLE table; default: quant
  std::optional<DType> embed_quant;  // of embed_tokens; default: quant
  std::optional<DType> tower_quant;  // f32, f16, bf16, q8c; default: f32 if quant is, else bf16
};

// kUnsupported for a format that the decoder or the towers cannot have.
Status CheckFormatOptions(const FormatOptions& options);

// The format of one tensor of the text decoder: the wanted one, or the best that can hold it.
// Tensors that need f32 stay f32, small sensitive ones have at least 8 bits, and what does not fit
// into 4-bit rows or blocks of 32 becomes q8c. `shell_ends` are those of the layer of a down_proj.
DType FormatFor(const TensorSpec& spec, std::span<const uint32_t> shell_ends,
                const FormatOptions& options);

// The layout of a tensor of the text decoder in that format: by neuron where the feed-forward
// network is sparse, tiles wherever the matrix kernels can read them in place, the specification's
// layout elsewhere. `text` is the whole model, so that a sub-model gets the same bytes.
Layout LayoutFor(const TensorSpec& spec, DType dtype, const TextConfig& text);

// How a tensor of the text decoder is stored.
struct StoredForm {
  DType dtype;
  Layout layout;
};

// FormatFor and LayoutFor, but for the projections around a sparse gate: q4c becomes q4b32 there,
// which lies by neuron and is read for few neurons only; and a down projection whose source has
// blocks of few bits along the inputs becomes q8c, because its own blocks would lie along the
// outputs, and rounding twice along two axes costs more accuracy than the first time did.
StoredForm FormFor(const TensorSpec& spec, SourceDType source, const TextConfig& text,
                   const FormatOptions& options);

// The format of a tower's tensor: vectors stay f32. With q8c, so does what the tower's int8
// operators do not read.
DType TowerFormatFor(SectionKind section, const std::string& name, std::span<const uint64_t> shape,
                     const FormatOptions& options);

// The layout of a tower's tensor in that format.
Layout TowerLayoutFor(SectionKind section, DType dtype, std::span<const uint64_t> shape);

// "q4b32, ple q8c, embed q8c, towers bf16": for provenance.
std::string DescribeFormats(const FormatOptions& options);

// The layer that a text tensor belongs to; empty for those of no layer.
std::optional<uint32_t> LayerOfTensor(const std::string& name);

// The shells of a transposed tensor's layer; empty for other tensors.
std::span<const uint32_t> ShellsOf(const TensorSpec& spec, const TextConfig& text);

}  // namespace nestling
