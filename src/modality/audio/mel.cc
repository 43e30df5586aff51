// SPDX-License-Identifier: Apache-2.0
#include "modality/audio/mel.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <kissfft/kissfft.hh>
#include <numbers>

namespace nestling {
namespace {

double MelOfHertz(double hertz) { return 2595.0 * std::log10(1.0 + hertz / 700.0); }
double HertzOfMel(double mel) { return 700.0 * (std::pow(10.0, mel / 2595.0) - 1.0); }

// Radixes of kissfft that need no memory of its own during a transform.
bool HasSmallFactors(size_t n) {
  for (const size_t factor : {2u, 3u, 5u}) {
    while (n % factor == 0) n /= factor;
  }
  return n == 1;
}

}  // namespace

// In doubles: a bin that holds next to nothing beside a loud one is the rounding of the loud one,
// and the logarithm shows it.
struct MelFrontEnd::Fft {
  explicit Fft(size_t length) : half(length / 2, /*inverse=*/false) {}
  kissfft<double> half;  // a real transform of twice its length
};

MelFrontEnd::MelFrontEnd(const MelConfig& config) : config_(config) {}
MelFrontEnd::~MelFrontEnd() = default;

Result<std::unique_ptr<MelFrontEnd>> MelFrontEnd::Create(const MelConfig& config) {
  if (!HasSmallFactors(config.fft_length)) {
    return Unsupported("audio tower: \"fft_length\" is ", config.fft_length,
                       ", want a product of 2, 3 and 5");
  }
  std::unique_ptr<MelFrontEnd> front_end(new MelFrontEnd(config));
  front_end->fft_ = std::make_unique<const Fft>(config.fft_length);
  const size_t length = config.frame_length;
  front_end->window_.resize(length);
  for (size_t n = 0; n < length; ++n) {
    // In f32 as the reference makes it: the rounding of the window (1e-7) leaks from loud lines
    // into quiet ones, where the logarithm shows it (2e-4).
    const float phase = static_cast<float>(2.0 * std::numbers::pi) * static_cast<float>(n) /
                        static_cast<float>(length);
    front_end->window_[n] =
        0.5f * (1.0f - static_cast<float>(std::cos(static_cast<double>(phase))));
  }
  front_end->MakeFilters();
  return front_end;
}

void MelFrontEnd::MakeFilters() {
  const size_t num_points = config_.num_bins + 2;
  const double lowest = MelOfHertz(config_.min_frequency);
  const double highest = MelOfHertz(config_.max_frequency);
  std::vector<double> points(num_points);  // corners of the triangles, Hz
  for (size_t j = 0; j < num_points; ++j) {
    const double share = static_cast<double>(j) / static_cast<double>(num_points - 1);
    points[j] = HertzOfMel(lowest + (highest - lowest) * share);
  }
  const double line_width =
      static_cast<double>(kAudioSampleRate) / static_cast<double>(config_.fft_length);
  filters_.resize(config_.num_bins);
  for (size_t j = 0; j < config_.num_bins; ++j) {
    Filter& filter = filters_[j];
    for (size_t line = 0; line <= config_.fft_length / 2; ++line) {
      const double f = line_width * static_cast<double>(line);
      const double rising = (f - points[j]) / (points[j + 1] - points[j]);
      const double falling = (points[j + 2] - f) / (points[j + 2] - points[j + 1]);
      const double weight = std::min(rising, falling);
      if (weight <= 0.0) continue;
      if (filter.weights.empty()) filter.first_line = line;
      filter.weights.push_back(weight);
    }
  }
}

// The padded frame, then fft_length / 2 complex lines and one more for the last real one.
size_t MelFrontEnd::ScratchSize() const { return 2 * config_.fft_length + 2; }

void MelFrontEnd::Compute(const float* samples, double* scratch, float* log_mel) const {
  const size_t length = config_.frame_length, half = config_.fft_length / 2;
  double* const frame = scratch;
  auto* const lines = reinterpret_cast<std::complex<double>*>(scratch + config_.fft_length);
  // In f32, as the reference: samples, pre-emphasis and window.
  const float scale = static_cast<float>(config_.input_scale);
  const float coefficient = static_cast<float>(config_.preemphasis);
  float previous = scale * samples[0];
  frame[0] = previous * static_cast<float>(1.0 - config_.preemphasis) * window_[0];
  for (size_t n = 1; n < length; ++n) {
    const float sample = scale * samples[n];
    const float emphasised = sample - coefficient * previous;
    frame[n] = emphasised * window_[n];
    previous = sample;
  }
  std::fill(frame + length, frame + config_.fft_length, 0.0);
  fft_->half.transform_real(frame, lines);
  // kissfft packs the two real lines, 0 and fft_length / 2, into the first.
  lines[half] = lines[0].imag();
  lines[0] = lines[0].real();
  double* const magnitudes = frame;  // the transform has read it
  for (size_t k = 0; k <= half; ++k) {
    magnitudes[k] =
        std::sqrt(lines[k].real() * lines[k].real() + lines[k].imag() * lines[k].imag());
  }
  for (size_t j = 0; j < config_.num_bins; ++j) {
    const Filter& filter = filters_[j];
    double sum = 0.0;
    for (size_t i = 0; i < filter.weights.size(); ++i) {
      sum += filter.weights[i] * magnitudes[filter.first_line + i];
    }
    log_mel[j] = static_cast<float>(std::log(std::max(sum, config_.floor)));
  }
}

}  // namespace nestling
