// SPDX-License-Identifier: Apache-2.0
// One layer of the decoder, in the order of gemma3n.md 2.4.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "graph/decoder_blocks.h"
#include "kernels/altup/altup.h"
#include "kernels/attention/attention.h"
#include "kernels/gelu_gate/gelu_gate.h"
#include "kernels/laurel/laurel.h"
#include "kernels/norm_rope/norm_rope.h"
#include "kernels/rms_norm/rms_norm.h"
#include "runtime/decoder.h"
#include "runtime/for_rows.h"

namespace nestling {
namespace {

constexpr size_t kMaxStreams = kernels::kMaxAltupStreams;

// out[i] = bias + sum_k matrix[i][k] x[k].
void SmallMatVec(std::span<const float> matrix, const float* x, size_t columns, float bias,
                 float* out) {
  const size_t rows = matrix.size() / columns;
  for (size_t i = 0; i < rows; ++i) {
    float sum = bias;
    for (size_t k = 0; k < columns; ++k) sum += matrix[i * columns + k] * x[k];
    out[i] = sum;
  }
}

// Row t of a shell's [rows, width] matrix, which begins at rows * shell.begin.
float* ShellRow(float* base, size_t rows, const FfnShell& shell, size_t t) {
  return base + rows * shell.begin + t * (shell.end - shell.begin);
}

}  // namespace

Status Decoder::RunLayer(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  PredictAndNorm(pass, step);
  const float* inputs[] = {pass.s.x};
  float* outputs[] = {pass.s.q, pass.s.laurel, pass.s.k, pass.s.v};
  const bool with_kv = layer.owns_kv && layer.kv == nullptr;
  RETURN_IF_ERROR(layer.projections->Run(pass.rows, inputs, std::span(outputs, with_kv ? 4 : 2),
                                         pass.s.linear));
  if (layer.kv != nullptr) {
    RETURN_IF_ERROR(layer.kv->Run(pass.rows, inputs, std::span(outputs + 2, 2), pass.s.linear));
  }
  if (layer.owns_kv) StoreKv(pass, step);
  return FinishLayer(pass, step);
}

Status Decoder::RunLastOwner(Pass& pass, const Step& step, Want want) {
  // Later layers only read keys and values, so of this layer all positions but the last need
  // nothing else (gemma3n.md 2.11).
  const LayerBlocks& layer = blocks_.layer(step.layer);
  PredictAndNorm(pass, step);
  const float* inputs[] = {pass.s.x};
  float* kv_outputs[] = {pass.s.k, pass.s.v};
  RETURN_IF_ERROR(layer.kv->Run(pass.rows, inputs, kv_outputs, pass.s.linear));
  StoreKv(pass, step);
  if (want == Want::kNone) return OkStatus();
  KeepLastRow(pass, config_);
  float* outputs[] = {pass.s.q, pass.s.laurel};
  RETURN_IF_ERROR(layer.projections->Run(pass.rows, inputs, outputs, pass.s.linear));
  return FinishLayer(pass, step);
}

void Decoder::KeepLastRow(Pass& pass, const TextConfig& config) {
  const size_t last = pass.rows - 1, hidden = config.hidden_size, half = config.head_dim / 2;
  if (last == 0) return;
  const auto keep = [last](float* rows, size_t width) {
    std::memmove(rows, rows + last * width, width * sizeof(float));
  };
  keep(pass.s.embedding, hidden);
  keep(pass.s.x, hidden);
  for (uint32_t k = 0; k < config.altup_num_inputs; ++k) keep(pass.s.streams[k], hidden);
  for (size_t type = 0; type < 2; ++type) {
    keep(pass.s.cos[type], half);
    keep(pass.s.sin[type], half);
  }
  pass.first_ple += last;
  pass.position += static_cast<uint32_t>(last);
  pass.rows = 1;
}

void Decoder::PredictAndNorm(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t hidden = config_.hidden_size, n = config_.altup_num_inputs;
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    float* streams[kMaxStreams];
    for (size_t k = 0; k < n; ++k) streams[k] = pass.s.streams[k] + t * hidden;
    float modalities[kMaxStreams], coefs[kMaxStreams * kMaxStreams];
    float* active = streams[config_.altup_active_idx];
    kernels::AltupRouter(active, layer.router_norm.data(), layer.router.data(), modalities, n,
                         hidden, config_.rms_norm_eps);
    SmallMatVec(layer.prediction_coefs, modalities, n, 0.0f, coefs);
    kernels::AltupPredict(streams, coefs, n, hidden);
    kernels::RmsNorm(active, layer.input_norm.data(), pass.s.x + t * hidden, hidden,
                     config_.rms_norm_eps);
  });
}

void Decoder::StoreKv(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t head_dim = config_.head_dim, kv_heads = config_.num_kv_heads;
  const size_t type = static_cast<size_t>(config_.layers[step.layer].type);
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const float* cos = pass.s.cos[type] + t * head_dim / 2;
    const float* sin = pass.s.sin[type] + t * head_dim / 2;
    for (size_t head = 0; head < kv_heads; ++head) {
      float* k = pass.s.k + (t * kv_heads + head) * head_dim;
      float* v = pass.s.v + (t * kv_heads + head) * head_dim;
      kernels::NormRope(k, layer.k_norm.data(), cos, sin, k, head_dim, config_.rms_norm_eps);
      kernels::RmsNorm(v, /*w=*/nullptr, v, head_dim, config_.rms_norm_eps);
    }
  });
  kv_->Write(step.layer, pass.position, pass.rows, pass.s.k, pass.s.v);
}

Status Decoder::FinishLayer(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t hidden = config_.hidden_size;
  Attend(pass, step);
  const float* inputs[] = {pass.s.attention, pass.s.laurel};
  float* outputs[] = {pass.s.attention_out, pass.s.laurel_out};
  RETURN_IF_ERROR(layer.attention_out->Run(pass.rows, inputs, outputs, pass.s.linear));
  const float* active = pass.s.streams[config_.altup_active_idx];
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const size_t row = t * hidden;
    kernels::CombineAttentionLaurel(active + row, pass.s.attention_out + row,
                                    layer.post_attention_norm.data(), pass.s.x + row,
                                    pass.s.laurel_out + row, layer.laurel_norm.data(),
                                    pass.s.u + row, hidden, config_.rms_norm_eps);
    kernels::RmsNorm(pass.s.u + row, layer.pre_ffn_norm.data(), pass.s.x + row, hidden,
                     config_.rms_norm_eps);
  });
  RETURN_IF_ERROR(FeedForward(pass, step));
  Correct(pass, step);
  return AddPle(pass, step);
}

void Decoder::Attend(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t head_dim = config_.head_dim, heads = config_.num_heads;
  const size_t kv_heads = config_.num_kv_heads, group = heads / kv_heads;
  const size_t type = static_cast<size_t>(config_.layers[step.layer].type);
  const size_t tile = AttentionTileTokens(group, pass.rows);
  const size_t tiles = DivUp(pass.rows, tile);

  const auto task = [&](size_t index) {
    const uint32_t kv_head = static_cast<uint32_t>(index % kv_heads);
    const size_t begin = index / kv_heads * tile;
    const size_t tokens = std::min(tile, pass.rows - begin);
    float* memory = pass.s.attention_scratch + index * pass.s.attention_scratch_floats;
    float* q = memory;                         // [tokens * group, head_dim]
    float* out = q + tile * group * head_dim;  // [tokens * group, head_dim]
    int64_t first_key[kAttentionRows], last_key[kAttentionRows];
    // A group wider than a task's usual rows makes tasks of one token (AttentionTileTokens).
    const size_t part = std::min(group, kAttentionRows);
    for (size_t h0 = 0; h0 < group; h0 += part) {
      const size_t part_heads = std::min(part, group - h0);
      size_t row = 0;
      for (size_t t = begin; t < begin + tokens; ++t) {
        const uint32_t position = pass.position + static_cast<uint32_t>(t);
        const float* cos = pass.s.cos[type] + t * head_dim / 2;
        const float* sin = pass.s.sin[type] + t * head_dim / 2;
        for (size_t h = 0; h < part_heads; ++h, ++row) {
          const size_t head = kv_head * group + h0 + h;
          kernels::NormRope(pass.s.q + (t * heads + head) * head_dim, layer.q_norm.data(), cos, sin,
                            q + row * head_dim, head_dim, config_.rms_norm_eps);
          first_key[row] = kv_->FirstVisible(step.layer, position);
          last_key[row] = position;
        }
      }
      kernels::AttentionArgs args;
      args.q = q;
      args.q_stride = head_dim;
      args.out = out;
      args.out_stride = head_dim;
      args.num_rows = row;
      args.first_key = first_key;
      args.last_key = last_key;
      args.num_spans = kv_->Spans(step.layer, kv_head, static_cast<uint32_t>(first_key[0]),
                                  static_cast<uint32_t>(last_key[row - 1]), args.spans);
      args.head_dim = head_dim;
      args.type = kv_->type();
      args.scale = 1.0f;  // Gemma 3n does not divide by sqrt(head_dim)
      args.scratch = out + tile * group * head_dim;
      kernels::Attention(args);
      row = 0;
      for (size_t t = begin; t < begin + tokens; ++t) {
        for (size_t h = 0; h < part_heads; ++h, ++row) {
          const size_t head = kv_head * group + h0 + h;
          std::memcpy(pass.s.attention + (t * heads + head) * head_dim, out + row * head_dim,
                      head_dim * sizeof(float));
        }
      }
    }
  };
  const size_t tasks = tiles * kv_heads;
  // A decode step with a short window is over before a worker would have woken.
  constexpr size_t kKeysPerThread = 64;
  if (tasks > kv_heads || pass.position >= kKeysPerThread) {
    engine_.pool().ParallelFor(tasks, task);
  } else {
    for (size_t i = 0; i < tasks; ++i) task(i);
  }
}

float Decoder::GateCut(const Pass& pass, const Step& step, std::span<const FfnShell> shells,
                       size_t t) const {
  // The statistics run over the slice's whole width (gemma3n.md 2.8), population deviation.
  const float count = static_cast<float>(step.ffn_width);
  const auto gate = [&](const FfnShell& shell) {
    return ShellRow(pass.s.gate, pass.rows, shell, t);
  };
  float sum = 0.0f, squares = 0.0f;
  for (const FfnShell& shell : shells) sum += kernels::Sum(gate(shell), shell.end - shell.begin);
  const float mean = sum / count;
  for (const FfnShell& shell : shells) {
    squares += kernels::SumSquaredDeviation(gate(shell), shell.end - shell.begin, mean);
  }
  return mean + sparsity_z_[step.layer] * std::sqrt(squares / count);
}

void Decoder::RunSparseFfn(Pass& pass, const Step& step, std::span<const FfnShell> shells) {
  static_assert(SparseFfn::kFewTokens >= kExactTokens);
  ForRows(engine_.pool(), pass.rows,
          [&](size_t t) { pass.s.cuts[t] = GateCut(pass, step, shells, t); });
  GateShell gates[kMaxShells];
  for (size_t i = 0; i < shells.size(); ++i) {
    gates[i] = {ShellRow(pass.s.gate, pass.rows, shells[i], 0), shells[i].begin, shells[i].end};
  }
  blocks_.layer(step.layer)
      .sparse->Run(engine_.pool(), {.num_tokens = pass.rows,
                                    .x = pass.s.x,
                                    .shells = std::span<const GateShell>(gates, shells.size()),
                                    .cuts = pass.s.cuts,
                                    .memory = {pass.s.neurons, pass.s.up, pass.s.neuron_starts},
                                    .workspace = pass.s.linear,
                                    .out = pass.s.ffn_out});
}

Status Decoder::FeedForward(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t hidden = config_.hidden_size, rows = pass.rows;
  const float* inputs[] = {pass.s.x};
  size_t num_shells = 0;
  for (uint32_t end = 0; end < step.ffn_width; ++num_shells) {
    const FfnShell& shell = layer.shells[num_shells];
    float* outputs[] = {ShellRow(pass.s.gate, rows, shell, 0), ShellRow(pass.s.up, rows, shell, 0)};
    RETURN_IF_ERROR(shell.gate_up->Run(
        rows, inputs, std::span(outputs, layer.sparse != nullptr ? 1 : 2), pass.s.linear));
    end = shell.end;
  }
  const std::span<const FfnShell> shells(layer.shells.data(), num_shells);
  if (layer.sparse != nullptr) {
    RunSparseFfn(pass, step, shells);
    return OkStatus();
  }

  const bool sparse = config_.layers[step.layer].activation_sparsity > 0;
  ForRows(engine_.pool(), rows, [&](size_t t) {
    const float cut = sparse ? GateCut(pass, step, shells, t) : 0.0f;
    for (const FfnShell& shell : shells) {
      float* gate = ShellRow(pass.s.gate, rows, shell, t);
      const float* up = ShellRow(pass.s.up, rows, shell, t);
      const size_t width = shell.end - shell.begin;
      if (sparse) {
        kernels::SparseGeluGate(gate, up, gate, width, cut);
      } else {
        kernels::GeluGate(gate, up, gate, width);
      }
    }
  });

  for (const FfnShell& shell : shells) {
    const bool first = shell.begin == 0;
    const float* down_inputs[] = {ShellRow(pass.s.gate, rows, shell, 0)};
    float* outputs[] = {first ? pass.s.ffn_out : pass.s.shell_out};
    RETURN_IF_ERROR(shell.down->Run(rows, down_inputs, outputs, pass.s.linear));
    if (first) continue;
    ForRows(engine_.pool(), rows, [&](size_t t) {
      float* sum = pass.s.ffn_out + t * hidden;
      const float* part = pass.s.shell_out + t * hidden;
      for (size_t i = 0; i < hidden; ++i) sum[i] += part[i];
    });
  }
  return OkStatus();
}

void Decoder::Correct(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const size_t hidden = config_.hidden_size, n = config_.altup_num_inputs;
  const float* scale =
      layer.correct_output_scale.empty() ? nullptr : layer.correct_output_scale.data();
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const size_t row = t * hidden;
    float* activated = pass.s.u + row;
    kernels::RmsNormAdd(pass.s.ffn_out + row, layer.post_ffn_norm.data(), activated, hidden,
                        config_.rms_norm_eps);
    float modalities[kMaxStreams], coefs[kMaxStreams];
    kernels::AltupRouter(activated, layer.router_norm.data(), layer.router.data(), modalities, n,
                         hidden, config_.rms_norm_eps);
    SmallMatVec(layer.correction_coefs, modalities, n, 1.0f, coefs);
    float* streams[kMaxStreams];
    for (size_t k = 0; k < n; ++k) streams[k] = pass.s.streams[k] + row;
    kernels::AltupCorrect(streams, activated, coefs, n, config_.altup_active_idx, scale,
                          pass.s.ple_input + row, hidden);
  });
}

Status Decoder::AddPle(Pass& pass, const Step& step) {
  const LayerBlocks& layer = blocks_.layer(step.layer);
  const PleTable& table = engine_.ple().table();
  const size_t hidden = config_.hidden_size, ple_dim = config_.ple_dim;
  const float* inputs[] = {pass.s.ple_input, pass.s.embedding};
  float* outputs[] = {pass.s.ple_gate, pass.s.ple_projection};
  RETURN_IF_ERROR(layer.ple_in->Run(pass.rows, inputs, outputs, pass.s.linear));
  // The first layer waits for storage here, not before: its other work goes on meanwhile.
  RETURN_IF_ERROR(pass.ple.Wait());
  const float projection_scale = 1.0f / std::sqrt(static_cast<float>(hidden));
  const float row_scale = std::sqrt(static_cast<float>(ple_dim));
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    float* ple = pass.s.ple_projection + t * ple_dim;
    kernels::Scale(ple, projection_scale, ple_dim);
    kernels::RmsNorm(ple, blocks_.ple_projection_norm().data(), ple, ple_dim, config_.rms_norm_eps);
    float* row = pass.s.ple_row + t * ple_dim;
    table.DequantizeSpan(pass.ple.row(pass.first_ple + t), step.layer, row_scale, row);
    for (size_t i = 0; i < ple_dim; ++i) ple[i] += row[i];
    kernels::Scale(ple, std::sqrt(0.5f), ple_dim);
    float* gate = pass.s.ple_gate + t * ple_dim;
    kernels::GeluGate(gate, ple, gate, ple_dim);
  });
  const float* gates[] = {pass.s.ple_gate};
  float* added[] = {pass.s.ple_out};
  RETURN_IF_ERROR(layer.ple_out->Run(pass.rows, gates, added, pass.s.linear));
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    float* z = pass.s.ple_out + t * hidden;
    kernels::RmsNorm(z, layer.post_ple_norm.data(), z, hidden, config_.rms_norm_eps);
    for (uint32_t k = 1; k < config_.altup_num_inputs; ++k) {
      float* stream = pass.s.streams[k] + t * hidden;
      for (size_t i = 0; i < hidden; ++i) stream[i] += z[i];
    }
  });
  return OkStatus();
}

}  // namespace nestling
