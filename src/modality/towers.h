// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/thread_pool.h"
#include "container/reader.h"
#include "modality/audio/audio_tower.h"
#include "modality/hard_embeddings.h"
#include "modality/media.h"
#include "modality/media_cache.h"
#include "modality/tower_slot.h"
#include "modality/vision/image.h"
#include "modality/vision/vision_tower.h"

namespace nestling {

// What a tower computes in, whatever the container holds.
enum class TowerPrecision {
  kAuto,  // int8 if the container holds int8 weights, else f32
  kF32,
  kInt8,
};

// What an image or a sound takes in a prompt.
struct MediaSize {
  size_t clips = 1;  // a sound of more than 30 s is several
  size_t soft_tokens = 0;
  size_t positions = 0;  // placeholders
};

struct TowersOptions {
  // A tower that nobody has used for so long is let go; 0: only on request.
  double idle_seconds = 0;
  // Most bytes of soft tokens that are kept for images and sounds that come again.
  uint64_t cache_bytes = 16 << 20;
  TowerPrecision precision = TowerPrecision::kAuto;
  // Asked before a tower is loaded; an error is the load's. May be empty.
  std::function<Status(TowerKind)> admit = {};
  // Where the towers' packed weights are kept between runs.
  PackedCacheOptions packed_cache = {};
};

struct TowerInfo {
  TowerState state = TowerState::kAbsent;
  TowerCounters counters;
  StatusCode load_status = StatusCode::kOk;  // of the last load, also of one in the background
  uint64_t weight_bytes = 0;         // resident while it is ready; those of a file once used
  uint64_t packed_mapped_bytes = 0;  // of those, packed weights in a file's pages
  uint64_t anonymous_bytes = 0;      // of those, what no file has
  PackedCacheState packed_state = PackedCacheState::kNone;  // while it is ready
  std::string packed_note;                                  // likewise; PackedCacheInfo
  uint64_t activation_bytes = 0;  // resident at most, while it encodes; 0 unless it is ready
  uint64_t parameters = 0;        // in the container
};

// What a prompt and its images and sounds must be like; zeros: no such tower, or a damaged one.
struct MediaShape {
  uint32_t image_tokens = 0;  // placeholders of an image
  uint32_t image_width = 0;   // of its pixels after the resize
  uint32_t image_height = 0;
  uint32_t audio_tokens = 0;  // placeholders of a clip
  uint32_t min_samples = 0;   // of a sound
  uint32_t max_samples = 0;   // of one clip; a longer sound makes several
};

// The towers of a model: absent, unloaded, loading or ready; loaded by the first image or sound or
// on request, and let go again. Text never touches their pages. Thread-safe.
class Towers {
 public:
  // Both are borrowed and must outlive the towers.
  Towers(const ContainerReader& reader, const ThreadPool& pool, TowersOptions options);
  ~Towers();
  Towers(const Towers&) = delete;
  Towers& operator=(const Towers&) = delete;

  const MediaShape& shape() const { return shape_; }

  // Checks an image or a sound as encoding it does, but for the samples of the sound.
  Result<MediaSize> MeasureImage(const ImageView& image) const;
  Result<MediaSize> MeasurePixels(size_t num_values) const;
  Result<MediaSize> MeasureSound(size_t num_samples) const;
  // The same for so many soft tokens of an image or a clip that were encoded before.
  Result<MediaSize> MeasureTokens(TowerKind kind, size_t count) const;
  // kInvalidArgument: what was encoded by the tower of another model.
  Status CheckOwn(const Media& media) const;

  // Each loads its tower if need be. kUnsupported: the container has none, or one that this version
  // cannot run; kBadModel: it is damaged; kOutOfMemory: nothing has changed; kInvalidArgument: the
  // image or the sound.
  Result<Media> EncodeImage(const ImageView& image);
  // pixels [3, height, width] as PrepareImage makes them.
  Result<Media> EncodePixels(std::span<const float> pixels);
  // Mono PCM at 16 kHz, full scale -1 .. 1, of any length from MediaShape.min_samples on: a sound
  // longer than a clip is cut by AudioTower::Split, and every piece takes its own placeholders.
  Result<Media> EncodeSound(std::span<const float> pcm);
  // For sounds that are encoded clip by clip elsewhere (SoundRecording).
  Result<std::shared_ptr<AudioTower>> AcquireAudio();
  // An image or a sound of soft tokens that were encoded before. kInvalidArgument: more of them
  // than positions, or fewer in an image.
  Result<Media> ImageOf(SharedSoftTokens tokens) const;
  Result<Media> SoundOf(std::vector<SharedSoftTokens> pieces);

  Status Load(TowerKind kind, bool in_background);
  // Lets a tower go; its last running encoding keeps it until it ends.
  void Unload(TowerKind kind);
  // Whether a tower is ready and nobody uses it now; and lets it go if so. Neither waits for one
  // that is being loaded.
  bool IsIdle(TowerKind kind) const;
  bool UnloadIfIdle(TowerKind kind);
  TowerState State(TowerKind kind) const;
  TowerInfo Info(TowerKind kind) const;

  MediaCacheCounters cache_counters() const { return cache_.counters(); }
  uint64_t cache_max_bytes() const { return cache_.max_bytes(); }
  void ClearCache() { cache_.Clear(); }
  HardEmbeddings& hard_embeddings() { return hard_embeddings_; }

 private:
  using Clock = std::chrono::steady_clock;

  template <typename Make>
  Result<Media> Cached(const MediaKey& key, const Make& make);
  Result<Media> Encode(VisionTower& tower, std::span<const float> pixels);
  Result<std::shared_ptr<VisionTower>> AcquireVision();
  Media MediaOf(TowerKind kind, std::vector<SharedSoftTokens> pieces) const;
  Status Admit(TowerKind kind) const;
  // What is wrong with the towers that shape_ has no numbers of.
  Status CheckVision() const;
  Status CheckAudio() const;
  // Unloads what has been idle for long enough, until the towers are destroyed.
  void WatchIdle();
  void StartWatching();

  const ContainerReader& reader_;
  const TowersOptions options_;
  const Result<AudioConfig> audio_config_;
  MediaShape shape_;
  MediaCache cache_;
  HardEmbeddings hard_embeddings_;
  TowerSlot<VisionTower> vision_;
  TowerSlot<AudioTower> audio_;

  std::mutex watch_mutex_;  // of what follows
  std::condition_variable watch_changed_;
  bool stop_watching_ = false;
  uint64_t num_uses_ = 0;
  std::thread watcher_;
};

}  // namespace nestling
