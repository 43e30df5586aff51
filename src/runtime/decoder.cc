// SPDX-License-Identifier: Apache-2.0
#include "runtime/decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "graph/decoder_blocks.h"
#include "kernels/rms_norm/rms_norm.h"
#include "model/weights.h"
#include "runtime/for_rows.h"

namespace nestling {
namespace {

// Mean-square floor of AltUp's magnitude matching (gemma3n.md 2.3, 2.9).
constexpr float kMagnitudeFloor = 1e-5f;

// x *= target / sqrt(max(mean(x^2), floor)).
void MatchMagnitude(float* x, float target, size_t n) {
  const float mean_square = std::max(kernels::MeanSquare(x, n), kMagnitudeFloor);
  kernels::Scale(x, target / std::sqrt(mean_square), n);
}

std::vector<float> InverseFrequency(float theta, uint32_t head_dim) {
  std::vector<float> inverse(head_dim / 2);
  for (uint32_t i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    inverse[i] = 1.0f / std::pow(theta, exponent);
  }
  return inverse;
}

// Inverse of the standard normal's distribution function, to double precision, by bisection.
double InverseNormal(double p) {
  double low = -40.0, high = 40.0;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

Decoder::Decoder(const Engine& engine)
    : engine_(engine), config_(engine.text_config()), blocks_(engine.blocks()) {}

Result<std::unique_ptr<Decoder>> Decoder::Create(const Engine& engine, uint32_t context_tokens,
                                                 uint32_t chunk_tokens, kernels::KvType kv_type) {
  std::unique_ptr<Decoder> decoder(new Decoder(engine));
  const TextConfig& config = decoder->config_;
  decoder->chunk_tokens_ = chunk_tokens;
  ASSIGN_OR_RETURN(decoder->kv_, KvCache::Create(config, context_tokens, chunk_tokens, kv_type));
  ASSIGN_OR_RETURN(decoder->head_,
                   LmHead::Create(decoder->blocks_.lm_head(), engine.pool(), config));
  ASSIGN_OR_RETURN(decoder->last_row_, AlignedBuffer<float>::Create(config.hidden_size));
  decoder->inverse_frequency_[static_cast<size_t>(LayerType::kSliding)] =
      InverseFrequency(config.rope_theta_sliding, config.head_dim);
  decoder->inverse_frequency_[static_cast<size_t>(LayerType::kFull)] =
      InverseFrequency(config.rope_theta_full, config.head_dim);
  for (const LayerConfig& layer : config.layers) {
    decoder->sparsity_z_.push_back(
        layer.activation_sparsity > 0 ? static_cast<float>(InverseNormal(layer.activation_sparsity))
                                      : 0.0f);
  }
  for (std::unique_ptr<PleBatch>& batch : decoder->ple_) {
    ASSIGN_OR_RETURN(batch, PleBatch::Create(engine.ple(), chunk_tokens));
  }
  RETURN_IF_ERROR(decoder->SetSlice(engine.default_slice()));
  return decoder;
}

Result<Decoder::Plan> Decoder::MakePlan(const SliceConfig& slice) {
  RETURN_IF_ERROR(engine_.LoadSlice(slice));
  Plan plan{slice, {}, {}, WorkOfSlice(engine_.container(), slice)};
  std::vector<uint32_t> layers;
  size_t skipped = 0;
  for (uint32_t layer = 0; layer < config_.num_layers(); ++layer) {
    if (skipped < slice.skip_layers.size() && slice.skip_layers[skipped] == layer) {
      ++skipped;
      continue;
    }
    plan.steps.push_back({layer, slice.ffn[plan.steps.size()]});
    layers.push_back(layer);
  }
  plan.ple_selection = engine_.ple().table().Select(layers);
  return plan;
}

Status Decoder::SetSlice(const SliceConfig& slice) {
  ASSIGN_OR_RETURN(plan_, MakePlan(slice));
  return OkStatus();
}

size_t Decoder::FindPleBatch(std::span<const int32_t> tokens) {
  size_t index = replace_ple_;
  for (size_t i = 0; i < 2; ++i) {
    if (ple_[i]->Holds(tokens, plan_.ple_selection)) index = i;
  }
  if (!ple_[index]->Holds(tokens, plan_.ple_selection)) {
    ple_[index]->Start(tokens, plan_.ple_selection);
  }
  return index;
}

void Decoder::Prefetch(std::span<const int32_t> tokens) { replace_ple_ = 1 - FindPleBatch(tokens); }

void Decoder::TrimPle() {
  for (const std::unique_ptr<PleBatch>& batch : ple_) batch->Trim();
}

PleCounters Decoder::ple_counters() const {
  PleCounters sum;
  for (const std::unique_ptr<PleBatch>& batch : ple_) sum += batch->counters();
  return sum;
}

void Decoder::VisitMemory(VisitMemoryGroup visit) const {
  kv_->VisitMemory([&](std::span<const std::byte> part) { visit(MemoryGroup::kKv, part); });
  head_->VisitMemory([&](std::span<const std::byte> part) { visit(MemoryGroup::kLogits, part); });
  for (const std::unique_ptr<PleBatch>& batch : ple_) {
    visit(MemoryGroup::kScratch, batch->memory());
  }
}

Status Decoder::Run(Scratch& scratch, std::span<const int32_t> tokens,
                    std::span<const float* const> embeddings, uint32_t position, Want want,
                    LogitsSink sink, const std::atomic<bool>& cancelled) {
  NESTLING_DCHECK(!tokens.empty() && tokens.size() <= chunk_tokens_);
  NESTLING_DCHECK(embeddings.size() == tokens.size());
  replace_ple_ = FindPleBatch(tokens);  // from here on, the other one may hold the next chunk
  Pass pass{scratch, tokens.size(), position, *ple_[replace_ple_]};
  Embed(pass, tokens, embeddings);
  RETURN_IF_ERROR(InitStreams(pass));
  ComputeRope(pass);
  const uint32_t last_owner = config_.first_kv_shared_layer() - 1;
  for (const Step& step : plan_.steps) {
    if (cancelled.load(std::memory_order_relaxed)) return Cancelled("cancelled");
    if (step.layer == last_owner && want != Want::kAll) {
      RETURN_IF_ERROR(RunLastOwner(pass, step, want));
      if (want == Want::kNone) break;
    } else {
      RETURN_IF_ERROR(RunLayer(pass, step));
    }
  }
  CountLayers(tokens.size(), want);
  if (want == Want::kNone) return OkStatus();
  RETURN_IF_ERROR(Merge(pass));
  std::copy_n(pass.s.u + (pass.rows - 1) * config_.hidden_size, config_.hidden_size,
              last_row_.data());
  return want == Want::kAll ? EmitLogits(pass, sink) : OkStatus();
}

void Decoder::CountLayers(size_t num_tokens, Want want) {
  const auto& [every, last, head] = plan_.work;
  work_.bytes += every.bytes;
  work_.products += num_tokens * every.products;
  if (want == Want::kNone) return;
  work_.bytes += last.bytes;
  work_.products += (want == Want::kAll ? num_tokens : 1) * last.products;
}

void Decoder::CountHead(size_t num_tokens) {
  work_.bytes += plan_.work.head.bytes;
  work_.products += num_tokens * plan_.work.head.products;
}

void Decoder::Embed(Pass& pass, std::span<const int32_t> tokens,
                    std::span<const float* const> embeddings) {
  const size_t hidden = config_.hidden_size;
  const float scale = std::sqrt(static_cast<float>(hidden));
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    float* row = pass.s.embedding + t * hidden;
    if (embeddings[t] != nullptr) {
      std::memcpy(row, embeddings[t], hidden * sizeof(float));
    } else {
      DequantizeRow(blocks_.embedding(), static_cast<size_t>(tokens[t]), row);
      kernels::Scale(row, scale, hidden);
    }
    std::memcpy(pass.s.streams[0] + t * hidden, row, hidden * sizeof(float));
  });
}

Status Decoder::InitStreams(Pass& pass) {
  const size_t hidden = config_.hidden_size, num_streams = config_.altup_num_inputs;
  const float* inputs[] = {pass.s.embedding};
  RETURN_IF_ERROR(blocks_.altup_init().Run(
      pass.rows, inputs, std::span(pass.s.streams + 1, num_streams - 1), pass.s.linear));
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const float magnitude = std::sqrt(kernels::MeanSquare(pass.s.embedding + t * hidden, hidden));
    for (size_t k = 1; k < num_streams; ++k) {
      MatchMagnitude(pass.s.streams[k] + t * hidden, magnitude, hidden);
    }
  });
  return OkStatus();
}

void Decoder::ComputeRope(Pass& pass) {
  const size_t half = config_.head_dim / 2;
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const float position = static_cast<float>(pass.position + t);
    for (size_t type = 0; type < 2; ++type) {
      for (size_t i = 0; i < half; ++i) {
        const float angle = position * inverse_frequency_[type][i];
        pass.s.cos[type][t * half + i] = std::cos(angle);
        pass.s.sin[type][t * half + i] = std::sin(angle);
      }
    }
  });
}

Status Decoder::Merge(Pass& pass) {
  const size_t hidden = config_.hidden_size, num_streams = config_.altup_num_inputs;
  // The outputs need buffers that are free by now.
  float* merged[7] = {pass.s.attention_out, pass.s.laurel_out, pass.s.ffn_out, pass.s.shell_out,
                      pass.s.ple_input,     pass.s.ple_out,    pass.s.x};
  const float* inputs[7];
  for (size_t k = 1; k < num_streams; ++k) inputs[k - 1] = pass.s.streams[k];
  RETURN_IF_ERROR(blocks_.altup_merge().Run(pass.rows, std::span(inputs, num_streams - 1),
                                            std::span(merged, num_streams - 1), pass.s.linear));
  ForRows(engine_.pool(), pass.rows, [&](size_t t) {
    const float* h0 = pass.s.streams[0] + t * hidden;
    float* out = pass.s.u + t * hidden;
    const float magnitude = std::sqrt(kernels::MeanSquare(h0, hidden));
    std::memcpy(out, h0, hidden * sizeof(float));
    for (size_t k = 0; k + 1 < num_streams; ++k) {
      float* x = merged[k] + t * hidden;
      MatchMagnitude(x, magnitude, hidden);
      for (size_t i = 0; i < hidden; ++i) out[i] += x[i];
    }
    kernels::Scale(out, 1.0f / static_cast<float>(num_streams), hidden);
    kernels::RmsNorm(out, blocks_.final_norm().data(), out, hidden, config_.rms_norm_eps);
  });
  return OkStatus();
}

Status Decoder::EmitLogits(Pass& pass, LogitsSink sink) {
  const size_t hidden = config_.hidden_size, vocab = config_.vocab_size;
  CountHead(pass.rows);
  for (size_t t = 0; t < pass.rows; t += LmHead::kMaxRows) {
    const size_t rows = std::min(LmHead::kMaxRows, pass.rows - t);
    ASSIGN_OR_RETURN(const auto logits, head_->Logits(pass.s.u + t * hidden, rows));
    for (size_t r = 0; r < rows; ++r) {
      RETURN_IF_ERROR(sink(t + r, logits.subspan(r * vocab, vocab)));
    }
  }
  return OkStatus();
}

Result<std::span<const float>> Decoder::LastLogits() {
  CountHead(1);
  return head_->Logits(last_row_.data(), 1);
}

Candidates Decoder::LastCandidates(const CandidateQuery& query, size_t limit) {
  CountHead(1);
  return head_->FindCandidates(last_row_.data(), query, limit);
}

}  // namespace nestling
