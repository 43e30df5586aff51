// SPDX-License-Identifier: Apache-2.0
#include "graph/linear_block.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <utility>

namespace nestling {
namespace {

struct SubgraphDeleter {
  void operator()(xnn_subgraph* subgraph) const { xnn_delete_subgraph(subgraph); }
};
using SubgraphPtr = std::unique_ptr<xnn_subgraph, SubgraphDeleter>;

constexpr int32_t kInt4ZeroPoint = 8;

// Fewest rows that a subgraph is run with. On Arm, XNNPACK's f32 kernels of one row have several
// partial sums, and on some processors other cores have other kernels: a token alone would get
// other last bits than in a chunk (kExactTokens). Those of several rows all add up in one order.
#if defined(__aarch64__)
constexpr size_t kFewestRows = 2;
#else
constexpr size_t kFewestRows = 1;
#endif

bool IsQuantised(DType dtype) {
  return dtype == DType::kQ8C || dtype == DType::kQ4C || dtype == DType::kQ4B32;
}

// Adds the static weight tensor [out, in].
Status DefineWeight(xnn_subgraph_t subgraph, const LinearWeight& weight, const PackSource& source,
                    uint32_t* id) {
  const size_t dims[2] = {weight.out, weight.in};
  constexpr uint32_t kInternal = XNN_INVALID_VALUE_ID;
  switch (weight.matrix.dtype) {
    case DType::kF32:
      return XnnStatus(xnn_define_tensor_value(subgraph, xnn_datatype_fp32, 2, dims,
                                               source.elements(), kInternal, 0, id),
                       "define f32 weights");
    case DType::kQ8C:
      return XnnStatus(xnn_define_channelwise_quantized_tensor_value(
                           subgraph, xnn_datatype_qcint8, source.channel_scales(), 2,
                           /*channel_dim=*/0, dims, source.elements(), kInternal, 0, id),
                       "define q8c weights");
    case DType::kQ4C:
      return XnnStatus(
          xnn_define_channelwise_quantized_tensor_value_v2(
              subgraph, xnn_datatype_qcint4, kInt4ZeroPoint, source.channel_scales(), 2,
              /*channel_dim=*/0, dims, source.elements(), kInternal, 0, id),
          "define q4c weights");
    case DType::kQ4B32:
      return XnnStatus(
          xnn_define_blockwise_quantized_tensor_value(
              subgraph, xnn_datatype_qbint4, kInt4ZeroPoint, source.block_scales(), 2,
              /*channel_dim=*/0, kBlockSize, dims, source.elements(), kInternal, 0, id),
          "define q4b32 weights");
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  return Unsupported("weights of type ", DTypeName(weight.matrix.dtype), " in the decoder");
}

}  // namespace

Result<std::unique_ptr<LinearBlock>> LinearBlock::Create(GraphContext& context,
                                                         std::span<const LinearOp> ops) {
  std::unique_ptr<LinearBlock> block(new LinearBlock(context));
  RETURN_IF_ERROR(block->Build(ops));
  return block;
}

LinearBlock::~LinearBlock() {
  if (runtime_ != nullptr) xnn_delete_runtime(runtime_);
}

Status LinearBlock::Build(std::span<const LinearOp> all_ops) {
  NESTLING_DCHECK(!all_ops.empty() && all_ops.size() <= kMaxOps);
  std::vector<LinearOp> ops;  // those of the subgraph
  for (size_t i = 0; i < all_ops.size(); ++i) {
    const LinearOp& op = all_ops[i];
    NESTLING_DCHECK(op.input < kMaxInputs);
    if (input_channels_.size() <= op.input) input_channels_.resize(op.input + 1);
    input_channels_[op.input] = op.weight.in;
    num_parameters_ += op.weight.in * op.weight.out;
    if (op.weight.matrix.layout == Layout::kTiled) {
      tiled_.Add(op.weight, op.input, i);
    } else {
      ops.push_back(op);
      subgraph_outputs_.push_back(i);
    }
  }
  return ops.empty() ? OkStatus() : BuildSubgraph(ops);
}

Status LinearBlock::BuildSubgraph(std::span<const LinearOp> ops) {
  const size_t num_inputs = input_channels_.size();
  const uint32_t num_external = static_cast<uint32_t>(num_inputs + ops.size());
  xnn_subgraph_t raw = nullptr;
  RETURN_IF_ERROR(XnnStatus(xnn_create_subgraph(num_external, 0, &raw), "create a subgraph"));
  const SubgraphPtr subgraph(raw);

  std::vector<uint32_t> quantised(num_inputs, XNN_INVALID_VALUE_ID);
  for (size_t i = 0; i < num_inputs; ++i) {
    const size_t dims[2] = {1, input_channels_[i]};
    uint32_t id = XNN_INVALID_VALUE_ID;
    RETURN_IF_ERROR(XnnStatus(
        xnn_define_tensor_value(raw, xnn_datatype_fp32, 2, dims, nullptr, static_cast<uint32_t>(i),
                                XNN_VALUE_FLAG_EXTERNAL_INPUT, &id),
        "define an input"));
    const bool wanted = std::any_of(ops.begin(), ops.end(), [&](const LinearOp& op) {
      return op.input == i && IsQuantised(op.weight.matrix.dtype);
    });
    if (!wanted) continue;
    RETURN_IF_ERROR(XnnStatus(xnn_define_dynamically_quantized_tensor_value(
                                  raw, xnn_datatype_qdint8, 2, /*num_non_batch_dims=*/1, dims,
                                  XNN_INVALID_VALUE_ID, 0, &quantised[i]),
                              "define a quantised input"));
    RETURN_IF_ERROR(
        XnnStatus(xnn_define_unary(raw, xnn_unary_convert, /*params=*/nullptr, id, quantised[i], 0),
                  "define a conversion"));
  }

  PackedWeights& packed = context_.packed_weights();
  PackingScope scope(packed);
  std::vector<PackSource> sources;  // alive until the runtime has packed them
  sources.reserve(ops.size());
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < ops.size(); ++i) {
    const LinearOp& op = ops[i];
    const size_t dims[2] = {1, op.weight.out};
    uint32_t output = XNN_INVALID_VALUE_ID, weight = XNN_INVALID_VALUE_ID;
    RETURN_IF_ERROR(XnnStatus(xnn_define_tensor_value(raw, xnn_datatype_fp32, 2, dims, nullptr,
                                                      static_cast<uint32_t>(num_inputs + i),
                                                      XNN_VALUE_FLAG_EXTERNAL_OUTPUT, &output),
                              "define an output"));
    std::string name = op.weight.PackedName();
    const bool there = !name.empty() && packed.Has(name);
    ASSIGN_OR_RETURN(PackSource source,
                     there ? PackSource::Placeholder(op.weight) : PackSource::Create(op.weight));
    sources.push_back(std::move(source));
    if (!name.empty()) {
      scope.Name(sources.back().elements(), std::move(name), op.weight.packed_shape());
    }
    RETURN_IF_ERROR(DefineWeight(raw, op.weight, sources.back(), &weight));
    const uint32_t input =
        IsQuantised(op.weight.matrix.dtype) ? quantised[op.input] : static_cast<uint32_t>(op.input);
    RETURN_IF_ERROR(
        XnnStatus(xnn_define_fully_connected(raw, -kInfinity, kInfinity, input, weight,
                                             /*bias_id=*/XNN_INVALID_VALUE_ID, output, /*flags=*/0),
                  "define a fully connected operator"));
  }

  if (kFewestRows > 1) {
    for (const size_t channels : input_channels_) {
      ASSIGN_OR_RETURN(few_inputs_.emplace_back(),
                       AlignedBuffer<float>::Create(kFewestRows * channels));
    }
    for (const LinearOp& op : ops) {
      ASSIGN_OR_RETURN(few_outputs_.emplace_back(),
                       AlignedBuffer<float>::Create(kFewestRows * op.weight.out));
    }
  }

  const std::lock_guard lock(context_.mutex());
  RETURN_IF_ERROR(
      XnnStatus(xnn_create_runtime_v4(raw, packed.provider(), context_.workspace(),
                                      context_.pool().get(), XNN_FLAG_YIELD_WORKERS, &runtime_),
                "create a runtime"));
  RETURN_IF_ERROR(scope.status());
  for (uint32_t id = 0; id < num_external; ++id) values_.push_back({id, nullptr});
  return Reshape(kFewestRows);
}

Status LinearBlock::Reshape(size_t num_rows) {
  num_rows_ = 0;  // unless all succeeds, the next run reshapes again
  for (size_t i = 0; i < input_channels_.size(); ++i) {
    const size_t dims[2] = {num_rows, input_channels_[i]};
    RETURN_IF_ERROR(XnnStatus(
        xnn_reshape_external_value(runtime_, static_cast<uint32_t>(i), 2, dims), "reshape"));
  }
  RETURN_IF_ERROR(XnnStatus(xnn_reshape_runtime(runtime_), "reshape"));
  num_rows_ = num_rows;
  return OkStatus();
}

Status LinearBlock::Run(size_t num_tokens, std::span<const float* const> inputs,
                        std::span<float* const> outputs, const LinearWorkspace& workspace) {
  NESTLING_DCHECK(inputs.size() == input_channels_.size());
  if (!tiled_.empty()) tiled_.Run(context_.pool(), num_tokens, inputs, outputs, workspace);
  if (runtime_ == nullptr) return OkStatus();

  std::array<float*, kMaxOps> own_outputs;  // the subgraph's part of them
  const size_t num_outputs = subgraph_outputs_.size();
  for (size_t i = 0; i < num_outputs; ++i) own_outputs[i] = outputs[subgraph_outputs_[i]];
  const std::lock_guard lock(context_.mutex());
  if (num_tokens >= kFewestRows) {
    return RunSubgraph(num_tokens, inputs, std::span(own_outputs).first(num_outputs));
  }
  // The rows that are too many hold what an earlier call had there, and nobody reads theirs.
  std::array<const float*, kMaxInputs> few_inputs;
  std::array<float*, kMaxOps> few_outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::memcpy(few_inputs_[i].data(), inputs[i], num_tokens * input_channels_[i] * sizeof(float));
    few_inputs[i] = few_inputs_[i].data();
  }
  for (size_t i = 0; i < num_outputs; ++i) few_outputs[i] = few_outputs_[i].data();
  RETURN_IF_ERROR(RunSubgraph(kFewestRows, std::span(few_inputs).first(inputs.size()),
                              std::span(few_outputs).first(num_outputs)));
  for (size_t i = 0; i < num_outputs; ++i) {
    std::memcpy(own_outputs[i], few_outputs[i],
                few_outputs_[i].size_bytes() / kFewestRows * num_tokens);
  }
  return OkStatus();
}

Status LinearBlock::RunSubgraph(size_t num_rows, std::span<const float* const> inputs,
                                std::span<float* const> outputs) {
  bool changed = false;
  if (num_rows != num_rows_) {
    RETURN_IF_ERROR(Reshape(num_rows));
    changed = true;
  }
  const auto set = [&](size_t id, const float* data) {
    void* pointer = const_cast<float*>(data);  // XNNPACK's external values have one type
    changed |= values_[id].data != pointer;
    values_[id].data = pointer;
  };
  for (size_t i = 0; i < inputs.size(); ++i) set(i, inputs[i]);
  for (size_t i = 0; i < outputs.size(); ++i) set(inputs.size() + i, outputs[i]);
  if (changed) {
    RETURN_IF_ERROR(
        XnnStatus(xnn_setup_runtime_v2(runtime_, values_.size(), values_.data()), "set up"));
  }
  return XnnStatus(xnn_invoke_runtime(runtime_), "run");
}

void LinearBlock::VisitBlocks(const float* x, const LinearWorkspace& workspace,
                              VisitOutputs visit) const {
  NESTLING_DCHECK(has_blocks());
  tiled_.VisitBlocks(context_.pool(), x, workspace, visit);
}

}  // namespace nestling
