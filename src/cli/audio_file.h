// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace nestling::cli {

// What the library takes.
inline constexpr int kSoundRate = 16000;

// A small file may hold, or claim, an enormous sound: what is beyond these is refused, before it is
// decoded where the file says so, else as soon as it is seen.
inline constexpr int kMaxSoundSeconds = 3600;
inline constexpr int kMinSoundFileRate = 1000, kMaxSoundFileRate = 384000;  // Hz
inline constexpr int kMaxSoundChannels = 16;

// Decodes a WAV, FLAC, OGG (Vorbis, Opus) or MP3 file of any rate and number of channels to mono at
// kSoundRate: the mean of the channels, resampled. Empty on success, else one line that says what
// is wrong with it; *samples is then unchanged. A file that is cut off is an error wherever its
// format tells (MP3 does not).
std::string ReadAudioFile(const std::string& path, std::vector<float>* samples);

}  // namespace nestling::cli
