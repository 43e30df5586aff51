// SPDX-License-Identifier: Apache-2.0
#include "modality/towers.h"

#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "modality/audio/audio_config.h"
#include "modality/audio/audio_stream.h"
#include "modality/vision/vision_config.h"

namespace nestling {
namespace {

// What an encoding depends on, piece by piece.
class KeyMaker {
 public:
  KeyMaker(std::string_view what, uint64_t width, uint64_t height) {
    XXH3_128bits_reset(&state_);
    Add(what.data(), what.size());
    Add(&width, sizeof width);
    Add(&height, sizeof height);
  }
  void Add(const void* bytes, size_t count) { XXH3_128bits_update(&state_, bytes, count); }
  MediaKey Get() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(&state_);
    return {hash.low64, hash.high64};
  }

 private:
  XXH3_state_t state_;
};

MediaShape ShapeOf(const ContainerReader& reader, const Result<AudioConfig>& audio) {
  MediaShape shape;
  if (const Result<VisionConfig> vision = ReadVisionConfig(reader); vision.ok()) {
    shape.image_tokens = static_cast<uint32_t>(vision->num_soft_tokens());
    shape.image_width = static_cast<uint32_t>(vision->image_width);
    shape.image_height = static_cast<uint32_t>(vision->image_height);
  }
  if (audio.ok()) {
    shape.audio_tokens = static_cast<uint32_t>(audio->num_positions);
    shape.min_samples = static_cast<uint32_t>(audio->min_samples());
    shape.max_samples = static_cast<uint32_t>(audio->max_samples());
  }
  return shape;
}

VisionOptions VisionOptionsOf(TowerPrecision precision, const PackedCacheOptions& cache) {
  using Compute = VisionOptions::Compute;
  VisionOptions options;
  options.cache = cache;
  if (precision == TowerPrecision::kF32) options.compute = Compute::kF32;
  if (precision == TowerPrecision::kInt8) options.compute = Compute::kInt8;
  return options;
}

AudioOptions AudioOptionsOf(TowerPrecision precision, const PackedCacheOptions& cache) {
  AudioOptions options;
  options.cache = cache;
  if (precision == TowerPrecision::kF32) options.compute = AudioCompute::kF32;
  if (precision == TowerPrecision::kInt8) options.compute = AudioCompute::kInt8;
  return options;
}

bool Has(const ContainerReader& reader, SectionKind section) {
  return reader.FindSection(section) != nullptr;
}

uint64_t ParametersOf(const ContainerReader& reader, SectionKind section) {
  uint64_t parameters = 0;
  for (const TensorInfo& tensor : reader.tensors()) {
    if (tensor.section != section) continue;
    uint64_t count = 1;
    for (const uint64_t size : tensor.shape) count *= size;
    parameters += count;
  }
  return parameters;
}

template <typename Tower>
void FillInfo(const TowerSlot<Tower>& slot, TowerInfo* info) {
  info->state = slot.state();
  info->counters = slot.counters();
  info->load_status = slot.load_status();
  const auto tower = slot.Peek();
  if (tower == nullptr) return;
  info->weight_bytes = tower->weight_bytes();
  const PackedCacheInfo packed = tower->packed_info();
  info->packed_mapped_bytes = packed.mapped_bytes;
  info->anonymous_bytes = packed.anonymous_bytes;
  info->packed_state = packed.state;
  info->packed_note = packed.note;
}

SharedSoftTokens Share(SoftTokens tokens) {
  return std::make_shared<const SoftTokens>(std::move(tokens));
}

}  // namespace

Towers::Towers(const ContainerReader& reader, const ThreadPool& pool, TowersOptions options)
    : reader_(reader),
      options_(std::move(options)),
      audio_config_(ReadAudioConfig(reader)),
      shape_(ShapeOf(reader, audio_config_)),
      cache_(options_.cache_bytes),
      hard_embeddings_(reader),
      vision_("vision", Has(reader, SectionKind::kVision),
              [this, &pool]() -> Result<std::unique_ptr<VisionTower>> {
                RETURN_IF_ERROR(Admit(TowerKind::kVision));
                return VisionTower::Create(
                    reader_, pool, VisionOptionsOf(options_.precision, options_.packed_cache));
              }),
      audio_("audio", Has(reader, SectionKind::kAudio),
             [this, &pool]() -> Result<std::unique_ptr<AudioTower>> {
               RETURN_IF_ERROR(Admit(TowerKind::kAudio));
               return AudioTower::Create(reader_, pool,
                                         AudioOptionsOf(options_.precision, options_.packed_cache));
             }) {}

Towers::~Towers() {
  {
    const std::lock_guard lock(watch_mutex_);
    stop_watching_ = true;
  }
  watch_changed_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

Status Towers::Admit(TowerKind kind) const {
  return options_.admit ? options_.admit(kind) : OkStatus();
}

Media Towers::MediaOf(TowerKind kind, std::vector<SharedSoftTokens> pieces) const {
  Media media;
  media.kind = kind;
  media.model = reader_.content_hash();
  media.pieces = std::move(pieces);
  media.positions = kind == TowerKind::kVision ? shape_.image_tokens : shape_.audio_tokens;
  return media;
}

template <typename Make>
Result<Media> Towers::Cached(const MediaKey& key, const Make& make) {
  if (std::optional<Media> known = cache_.Find(key)) return *std::move(known);
  Result<Media> media = make();
  if (media.ok()) cache_.Insert(key, *media);
  return media;
}

Status Towers::CheckVision() const {
  if (shape_.image_tokens != 0) return OkStatus();
  if (!Has(reader_, SectionKind::kVision)) {
    return Unsupported("the container has no vision tower");
  }
  return ReadVisionConfig(reader_).status();
}

Status Towers::CheckAudio() const {
  if (!Has(reader_, SectionKind::kAudio)) return Unsupported("the container has no audio tower");
  return audio_config_.status();
}

Result<MediaSize> Towers::MeasureTokens(TowerKind kind, size_t count) const {
  const bool image = kind == TowerKind::kVision;
  RETURN_IF_ERROR(image ? CheckVision() : CheckAudio());
  const size_t positions = image ? shape_.image_tokens : shape_.audio_tokens;
  const size_t least = image ? positions : 1;
  if (count >= least && count <= positions) return MediaSize{1, count, positions};
  return InvalidArgument(image ? "image" : "clip", " of ", count, " soft tokens, want ",
                         image ? "" : "1 to ", positions);
}

Status Towers::CheckOwn(const Media& media) const {
  if (media.model == reader_.content_hash()) return OkStatus();
  return InvalidArgument(media.kind == TowerKind::kVision ? "an image" : "a sound",
                         " that was encoded by another model than this");
}

Result<MediaSize> Towers::MeasureImage(const ImageView& image) const {
  RETURN_IF_ERROR(CheckVision());
  RETURN_IF_ERROR(CheckImage(image));
  return MediaSize{1, shape_.image_tokens, shape_.image_tokens};
}

Result<MediaSize> Towers::MeasurePixels(size_t num_values) const {
  RETURN_IF_ERROR(CheckVision());
  const size_t want = size_t{3} * shape_.image_height * shape_.image_width;
  if (num_values != want) {
    return InvalidArgument("image of ", num_values, " values, want ", want, " (3 x ",
                           shape_.image_height, " x ", shape_.image_width, ")");
  }
  return MediaSize{1, shape_.image_tokens, shape_.image_tokens};
}

Result<MediaSize> Towers::MeasureSound(size_t num_samples) const {
  RETURN_IF_ERROR(CheckAudio());
  ASSIGN_OR_RETURN(const std::vector<SoundPiece> cuts, audio_config_->Split(num_samples));
  MediaSize size{cuts.size(), 0, cuts.size() * shape_.audio_tokens};
  for (const SoundPiece& cut : cuts) {
    size.soft_tokens += audio_config_->NumSoftTokens(cut.end - cut.begin);
  }
  return size;
}

Result<Media> Towers::EncodeImage(const ImageView& image) {
  // Of an image that cannot be, nothing is read.
  RETURN_IF_ERROR(MeasureImage(image).status());
  const size_t row_bytes = image.width * static_cast<size_t>(image.format);
  KeyMaker key(image.format == ImageView::Format::kRgb8 ? "rgb8" : "rgba8", image.width,
               image.height);
  for (size_t y = 0; y < image.height; ++y) {
    key.Add(image.pixels.data() + y * image.stride_bytes, row_bytes);
  }
  return Cached(key.Get(), [&]() -> Result<Media> {
    ASSIGN_OR_RETURN(const auto tower, AcquireVision());
    ASSIGN_OR_RETURN(const std::vector<float> pixels,
                     PrepareImage(image, tower->image_width(), tower->image_height()));
    return Encode(*tower, pixels);
  });
}

Result<Media> Towers::EncodePixels(std::span<const float> pixels) {
  RETURN_IF_ERROR(MeasurePixels(pixels.size()).status());
  KeyMaker key("pixels", pixels.size(), 0);
  key.Add(pixels.data(), pixels.size_bytes());
  return Cached(key.Get(), [&]() -> Result<Media> {
    for (const float value : pixels) {
      if (!(value >= -1e4f && value <= 1e4f)) {
        return InvalidArgument("pixels: ", value, ", want finite values of 0 to 1");
      }
    }
    ASSIGN_OR_RETURN(const auto tower, AcquireVision());
    return Encode(*tower, pixels);
  });
}

Result<Media> Towers::Encode(VisionTower& tower, std::span<const float> pixels) {
  const Clock::time_point start = Clock::now();
  Result<std::vector<float>> values = tower.Encode(pixels);
  vision_.NoteEncode(start, values.ok());
  if (!values.ok()) return values.status();
  return MediaOf(TowerKind::kVision, {Share({*std::move(values), tower.num_soft_tokens()})});
}

Result<std::shared_ptr<VisionTower>> Towers::AcquireVision() {
  ASSIGN_OR_RETURN(std::shared_ptr<VisionTower> tower, vision_.Acquire());
  StartWatching();
  return tower;
}

Result<std::shared_ptr<AudioTower>> Towers::AcquireAudio() {
  ASSIGN_OR_RETURN(std::shared_ptr<AudioTower> tower, audio_.Acquire());
  StartWatching();
  return tower;
}

Result<Media> Towers::ImageOf(SharedSoftTokens tokens) const {
  RETURN_IF_ERROR(MeasureTokens(TowerKind::kVision, tokens->count).status());
  return MediaOf(TowerKind::kVision, {std::move(tokens)});
}

Result<Media> Towers::SoundOf(std::vector<SharedSoftTokens> pieces) {
  for (const SharedSoftTokens& piece : pieces) {
    RETURN_IF_ERROR(MeasureTokens(TowerKind::kAudio, piece->count).status());
  }
  Media media = MediaOf(TowerKind::kAudio, std::move(pieces));
  const TowerConfig& config = reader_.header().audio;
  ASSIGN_OR_RETURN(
      media.padding,
      hard_embeddings_.Get(static_cast<int32_t>(config.vocab_offset + config.vocab_size - 1)));
  return media;
}

Result<Media> Towers::EncodeSound(std::span<const float> pcm) {
  RETURN_IF_ERROR(MeasureSound(pcm.size()).status());
  RETURN_IF_ERROR(CheckSamples(pcm));
  KeyMaker key("pcm", pcm.size(), 0);
  key.Add(pcm.data(), pcm.size_bytes());
  return Cached(key.Get(), [&]() -> Result<Media> {
    ASSIGN_OR_RETURN(const auto tower, AcquireAudio());
    ASSIGN_OR_RETURN(const std::vector<SoundPiece> cuts, audio_config_->Split(pcm.size()));
    std::vector<SharedSoftTokens> pieces;
    for (const SoundPiece& cut : cuts) {
      const Clock::time_point start = Clock::now();
      Result<SoftTokens> tokens = tower->Encode(pcm.subspan(cut.begin, cut.end - cut.begin));
      audio_.NoteEncode(start, tokens.ok());
      if (!tokens.ok()) return tokens.status();
      pieces.push_back(Share(*std::move(tokens)));
    }
    return SoundOf(std::move(pieces));
  });
}

Status Towers::Load(TowerKind kind, bool in_background) {
  const bool vision = kind == TowerKind::kVision;
  if (!in_background) return vision ? AcquireVision().status() : AcquireAudio().status();
  RETURN_IF_ERROR(vision ? vision_.LoadInBackground() : audio_.LoadInBackground());
  StartWatching();
  return OkStatus();
}

void Towers::Unload(TowerKind kind) {
  if (kind == TowerKind::kVision) {
    vision_.Unload();
  } else {
    audio_.Unload();
  }
}

bool Towers::IsIdle(TowerKind kind) const {
  return kind == TowerKind::kVision ? vision_.IsIdle() : audio_.IsIdle();
}

bool Towers::UnloadIfIdle(TowerKind kind) {
  return kind == TowerKind::kVision ? vision_.UnloadIfIdle() : audio_.UnloadIfIdle();
}

TowerState Towers::State(TowerKind kind) const {
  return kind == TowerKind::kVision ? vision_.state() : audio_.state();
}

TowerInfo Towers::Info(TowerKind kind) const {
  TowerInfo info;
  if (kind == TowerKind::kVision) {
    FillInfo(vision_, &info);
    if (const auto tower = vision_.Peek()) info.activation_bytes = tower->activation_bytes();
    info.parameters = ParametersOf(reader_, SectionKind::kVision);
  } else {
    FillInfo(audio_, &info);
    info.parameters = ParametersOf(reader_, SectionKind::kAudio);
  }
  return info;
}

void Towers::StartWatching() {
  if (options_.idle_seconds <= 0) return;
  const std::lock_guard lock(watch_mutex_);
  ++num_uses_;
  watch_changed_.notify_all();
  if (watcher_.joinable()) return;
  try {
    watcher_ = std::thread([this] { WatchIdle(); });
  } catch (const std::system_error&) {
    // Without a watcher the towers stay until they are told to go.
  }
}

void Towers::WatchIdle() {
  constexpr double kLongest = 1e8;  // three years; the clock counts no further than centuries
  const auto idle = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(std::min(options_.idle_seconds, kLongest)));
  // While a tower is in use beyond its time, it is looked at again after this.
  const Clock::duration pause = std::max<Clock::duration>(idle / 4, std::chrono::milliseconds(10));
  std::unique_lock lock(watch_mutex_);
  while (!stop_watching_) {
    const uint64_t uses = num_uses_;
    lock.unlock();
    vision_.UnloadIfIdle(Clock::now() - idle);
    audio_.UnloadIfIdle(Clock::now() - idle);
    std::optional<Clock::time_point> next;
    const auto look = [&](const auto& slot) {
      const TowerState state = slot.state();
      if (state != TowerState::kReady && state != TowerState::kLoading) return;
      const Clock::time_point end = std::max(slot.last_use() + idle, Clock::now() + pause);
      next = next ? std::min(*next, end) : end;
    };
    look(vision_);
    look(audio_);
    lock.lock();
    const auto changed = [&] { return stop_watching_ || num_uses_ != uses; };
    if (next) {
      watch_changed_.wait_until(lock, *next, changed);
    } else {
      watch_changed_.wait(lock, changed);
    }
  }
}

}  // namespace nestling
