// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/status.h"
#include "modality/audio/audio_config.h"

namespace nestling {

// The log-mel front end of gemma3n.md 5.1 and 5.2. Immutable, thread-safe.
//
// Frames have no mask here: in a clip that is encoded alone, padded to a multiple of 128 samples,
// every frame begins with a sample of the clip (the last frame begins more than a frame's length
// before the end of the padding), and that is what makes a frame valid.
class MelFrontEnd {
 public:
  static Result<std::unique_ptr<MelFrontEnd>> Create(const MelConfig& config);
  ~MelFrontEnd();

  // Doubles of working memory for one Compute.
  size_t ScratchSize() const;

  // samples [frame_length] -> log_mel [num_bins]. `scratch` is the caller's, of ScratchSize().
  void Compute(const float* samples, double* scratch, float* log_mel) const;

  // Weights of filter `bin`, those of the spectrum's lines `first_line` and after. For tests.
  struct Filter {
    size_t first_line = 0;
    std::vector<double> weights;
  };
  const Filter& filter(size_t bin) const { return filters_[bin]; }

 private:
  struct Fft;
  explicit MelFrontEnd(const MelConfig& config);
  void MakeFilters();

  const MelConfig config_;
  std::vector<float> window_;    // periodic Hann, [frame_length]
  std::vector<Filter> filters_;  // [num_bins]
  std::unique_ptr<const Fft> fft_;
};

}  // namespace nestling
