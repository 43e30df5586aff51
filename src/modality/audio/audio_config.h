// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "container/reader.h"

namespace nestling {

// The log-mel front end (gemma3n.md 5.1, 5.2). Defaults are the official ones.
struct MelConfig {
  size_t frame_length = 512;  // samples, 32 ms
  size_t hop_length = 160;    // samples, 10 ms
  size_t fft_length = 1024;
  size_t num_bins = 128;
  double min_frequency = 125.0;  // Hz
  double max_frequency = 7600.0;
  double preemphasis = 0.97;  // 0: none
  double floor = 1e-5;        // of a bin before the logarithm
  double input_scale = 1.0;
};

inline constexpr size_t kAudioSampleRate = 16000;
// Longest clip: 30 s.
inline constexpr size_t kMaxClipSamples = 480000;
// Clips are padded with zeros to a multiple of this.
inline constexpr size_t kClipSampleMultiple = 128;
// Square kernel and stride of both subsampling convolutions, over time and frequency.
inline constexpr size_t kSubsampleKernel = 3;
inline constexpr size_t kSubsampleStride = 2;

// Samples [begin, end) of a sound.
struct SoundPiece {
  size_t begin = 0;
  size_t end = 0;
};

// The tower with its embedder (gemma3n.md 5.3 to 5.8).
struct AudioConfig {
  MelConfig mel;
  size_t conv_channels[2] = {};     // 128, 32
  size_t conv_frequencies[2] = {};  // out of each convolution: 64, 32
  size_t size = 0;                  // of the conformer's rows: 1536
  size_t ffn_size = 0;
  size_t num_layers = 0;
  size_t num_heads = 0;
  size_t head_dim = 0;
  size_t attention_window = 0;  // keys that a step sees, its own included: 13
  size_t conv_kernel = 0;       // of the light convolution, over time
  size_t reduction = 0;         // steps of a soft token
  float logit_cap = 0.0f;
  float residual_weight = 0.0f;  // of the feed-forward branches
  float norm_eps = 0.0f;
  float group_norm_eps = 0.0f;
  size_t hard_embeddings = 0;  // rows of the table
  size_t hidden_size = 0;      // of the decoder
  size_t num_positions = 0;    // that a prompt holds for a clip: 188

  // Values of one time step after the convolutions.
  size_t subsampled_size() const { return conv_frequencies[1] * conv_channels[1]; }
  // Log-mel frames of a clip; 0: too short to be heard.
  size_t NumFrames(size_t num_samples) const;
  // Conformer steps, and soft tokens, of so many frames.
  size_t NumSteps(size_t num_frames) const;
  size_t NumSoftTokens(size_t num_samples) const;
  // Shortest clip that has a frame after padding, and the longest: 30 s, or less if the prompt's
  // positions do not suffice.
  size_t min_samples() const;
  size_t max_samples() const;
  // Shortest last piece of a sound that is cut: one second.
  size_t shortest_piece() const;

  // kInvalidArgument unless a sound of so many samples is a clip: fewer than min_samples() hold no
  // frame, more than max_samples() are several clips.
  Status CheckLength(size_t num_samples) const;
  // Cuts a sound of any length >= min_samples() into clips: pieces of max_samples(), the rest in
  // the last one. A rest below shortest_piece() takes its missing part from the piece before it,
  // so that no piece is too short; nothing overlaps and nothing is left out. A shorter sound:
  // kInvalidArgument.
  Result<std::vector<SoundPiece>> Split(size_t num_samples) const;
};

// Reads and checks the configuration against the shapes of the AUDIO section's tensors; every
// tensor that the tower reads exists afterwards. kNotFound: no audio tower. kBadModel names the
// field or tensor, kUnsupported a variant that this version cannot run.
Result<AudioConfig> ReadAudioConfig(const ContainerReader& reader);

namespace audio_names {
// "audio_tower.conformer.<layer>.<name>".
std::string Layer(size_t layer, const char* name);
// "audio_tower.subsample_conv_projection.<name>".
std::string Subsample(const char* name);
inline constexpr char kHardEmbedding[] = "embed_audio.embedding";
inline constexpr char kHardNorm[] = "embed_audio.hard_embedding_norm";
inline constexpr char kSoftNorm[] = "embed_audio.soft_embedding_norm";
inline constexpr char kProjection[] = "embed_audio.embedding_projection";
}  // namespace audio_names

}  // namespace nestling
