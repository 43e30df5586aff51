// SPDX-License-Identifier: Apache-2.0
//
// nestling.h for C++20: objects that clean up after themselves, strings and vectors, and
// exceptions, which is why this is a header and not a part of the library: everything here is
// compiled into your program, and only C crosses the border.
//
//   nestling::Engine engine("model.nest");
//   nestling::Session session(engine);
//   session.AddMessage(nestling::Role::kUser, "Hello");
//   session.Generate({}, [](const nestling::Token& token) {
//     std::cout << token.text << std::flush;
//     return true;  // go on
//   });
//
// Every failure throws nestling::Error. Units, states and costs are those of the C functions; their
// comments are not repeated. What a callback throws reaches the caller of the function that called
// it: the work stops, the library unwinds, then the exception goes on.
#ifndef NESTLING_NESTLING_HPP_
#define NESTLING_NESTLING_HPP_

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "nestling/nestling.h"

namespace nestling {
// Keeps these classes apart from the library's own of the same names.
inline namespace v0 {

class Error : public std::runtime_error {
 public:
  Error(nestling_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}
  nestling_status status() const noexcept { return status_; }

 private:
  nestling_status status_;
};

// Throws unless `status` is OK; to be called on the thread that made the call.
inline void Check(nestling_status status) {
  if (status == NESTLING_OK) return;
  const char* message = nestling_last_error();
  throw Error(status, message != nullptr ? message : nestling_status_name(status));
}

// A struct of nestling.h, ready to be filled.
template <typename T>
T MakeStruct() {
  T object;
  NESTLING_INIT(&object);
  return object;
}

namespace internal {

// Keeps what a callback throws away from C, until Rethrow().
class ExceptionKeeper {
 public:
  // Result of `body`, or `otherwise` if it throws.
  template <typename Body, typename T>
  T Run(T otherwise, Body&& body) noexcept {
    try {
      return body();
    } catch (...) {
      exception_ = std::current_exception();
      return otherwise;
    }
  }
  bool failed() const { return exception_ != nullptr; }
  void Rethrow() {
    if (exception_) std::rethrow_exception(std::exchange(exception_, nullptr));
  }

 private:
  std::exception_ptr exception_;
};

// Calls a copy-out function (char* buffer, size_t capacity, size_t* needed) twice.
template <typename Function>
std::string ReadText(const Function& function) {
  size_t needed = 0;
  Check(function(nullptr, 0, &needed));
  std::string text(needed, '\0');
  Check(function(text.data(), text.size(), &needed));
  text.resize(needed - 1);  // without the NUL
  return text;
}

}  // namespace internal

struct EngineOptions {
  uint32_t num_threads = 0;
  uint32_t chunk_tokens = 0;
  std::string slice;
  uint64_t memory_budget_bytes = 0;
  double target_decode_rate = 0;
  uint32_t budget_context_tokens = 0;
  nestling_ple_mode ple_mode = NESTLING_PLE_STREAM;
  uint64_t ple_cache_bytes = 0;
  double tower_idle_seconds = 0;
  uint64_t soft_token_cache_bytes = 0;
  nestling_tower_precision tower_precision = NESTLING_TOWER_AUTO;
  uint64_t cpu_mask = 0;
  std::string cache_dir;
};

// A piece of a message: text, an image or a sound. What it is made of is borrowed until the call
// that gets it returns.
class Part {
 public:
  static Part Text(std::string_view text) {
    return Part(NESTLING_PART_TEXT, text.empty() ? "" : text.data(), text.size());
  }
  // Rows from the top; `stride_bytes` 0: the rows' pixels follow one another.
  static Part Image(std::span<const uint8_t> pixels, uint32_t width, uint32_t height,
                    nestling_pixel_format format = NESTLING_PIXELS_RGB8, size_t stride_bytes = 0) {
    Part part(NESTLING_PART_IMAGE, pixels.data(), pixels.size());
    part.part_.width = width;
    part.part_.height = height;
    part.part_.pixel_format = format;
    part.part_.stride_bytes = stride_bytes;
    return part;
  }
  // [3, height, width] in 0 .. 1.
  static Part PreparedImage(std::span<const float> values, uint32_t width, uint32_t height) {
    Part part(NESTLING_PART_PREPARED_IMAGE, values.data(), values.size());
    part.part_.width = width;
    part.part_.height = height;
    return part;
  }
  // Mono, 16 kHz.
  static Part Audio(std::span<const float> samples) {
    return Part(NESTLING_PART_AUDIO, samples.data(), samples.size());
  }
  // Of Engine::Encode.
  static Part ImageTokens(std::span<const float> values) {
    return Part(NESTLING_PART_IMAGE_TOKENS, values.data(), values.size());
  }
  static Part AudioTokens(std::span<const float> values) {
    return Part(NESTLING_PART_AUDIO_TOKENS, values.data(), values.size());
  }
  // A finished AudioStream::get().
  static Part Audio(const nestling_audio_stream* stream) {
    return Part(NESTLING_PART_AUDIO_STREAM, stream, 0);
  }

  const nestling_part& get() const { return part_; }

 private:
  Part(nestling_part_type type, const void* data, size_t size)
      : part_(MakeStruct<nestling_part>()) {
    part_.type = type;
    part_.data = data;
    part_.size = size;
  }
  nestling_part part_;
};
static_assert(sizeof(Part) == sizeof(nestling_part));  // arrays of one are arrays of the other

namespace internal {
inline const nestling_part* Data(std::span<const Part> parts) {
  return parts.empty() ? nullptr : &parts.front().get();
}
}  // namespace internal

// A loaded model; any thread. Sessions keep what they need of it.
class Engine {
 public:
  explicit Engine(const std::string& path, const EngineOptions& options = {}) {
    const nestling_engine_options c_options = ToC(options);
    nestling_engine* engine = nullptr;
    Check(nestling_engine_create(path.c_str(), &c_options, &engine));
    engine_.reset(engine);
  }
  // A container inside an open file; `fd` stays yours.
  Engine(int fd, uint64_t offset, uint64_t length, const EngineOptions& options = {}) {
    const nestling_engine_options c_options = ToC(options);
    nestling_engine* engine = nullptr;
    Check(nestling_engine_create_from_fd(fd, offset, length, &c_options, &engine));
    engine_.reset(engine);
  }

  nestling_engine* get() const { return engine_.get(); }

  // Pointers in the result are borrowed from the engine.
  nestling_engine_info Info() const {
    auto info = MakeStruct<nestling_engine_info>();
    Check(nestling_engine_get_info(get(), &info));
    return info;
  }
  std::vector<nestling_slice_info> Slices() const {
    std::vector<nestling_slice_info> slices(Info().num_slices, MakeStruct<nestling_slice_info>());
    for (size_t i = 0; i < slices.size(); ++i) {
      Check(nestling_engine_get_slice(get(), i, &slices[i]));
    }
    return slices;
  }
  nestling_packed_info Packed(nestling_packed_part part) const {
    auto info = MakeStruct<nestling_packed_info>();
    Check(nestling_engine_get_packed(get(), part, &info));
    return info;
  }
  nestling_engine_choice Choice() const {
    auto choice = MakeStruct<nestling_engine_choice>();
    Check(nestling_engine_get_choice(get(), &choice));
    return choice;
  }
  nestling_engine_residency Residency() const {
    auto residency = MakeStruct<nestling_engine_residency>();
    Check(nestling_engine_get_residency(get(), &residency));
    return residency;
  }
  nestling_engine_memory Memory() const {
    auto memory = MakeStruct<nestling_engine_memory>();
    Check(nestling_engine_get_memory(get(), &memory));
    return memory;
  }

  nestling_tower_info TowerInfo(nestling_tower tower) const {
    auto info = MakeStruct<nestling_tower_info>();
    Check(nestling_engine_get_tower_info(get(), tower, &info));
    return info;
  }
  void LoadTower(nestling_tower tower, bool in_background = false) {
    Check(
        nestling_engine_load_tower(get(), tower, in_background ? NESTLING_LOAD_IN_BACKGROUND : 0));
  }
  void UnloadTower(nestling_tower tower) { Check(nestling_engine_unload_tower(get(), tower)); }
  nestling_soft_token_cache_info SoftTokenCacheInfo() const {
    auto info = MakeStruct<nestling_soft_token_cache_info>();
    Check(nestling_engine_get_soft_token_cache_info(get(), &info));
    return info;
  }
  void ClearSoftTokenCache() { Check(nestling_engine_clear_soft_token_cache(get())); }
  nestling_media_size MeasureMedia(const Part& media) const {
    auto size = MakeStruct<nestling_media_size>();
    Check(nestling_engine_measure_media(get(), &media.get(), &size));
    return size;
  }
  // [soft tokens, hidden_size]
  std::vector<float> Encode(const Part& media) {
    size_t needed = 0;
    Check(nestling_engine_encode(get(), &media.get(), nullptr, 0, &needed));
    std::vector<float> values(needed);
    Check(nestling_engine_encode(get(), &media.get(), values.data(), values.size(), &needed));
    return values;
  }

  // `flags`: NESTLING_TOKENIZE_*.
  std::vector<int32_t> Tokenize(std::string_view text, uint32_t flags = 0) const {
    size_t needed = 0;
    Check(nestling_engine_tokenize(get(), Data(text), text.size(), flags, nullptr, 0, &needed));
    std::vector<int32_t> tokens(needed);
    Check(nestling_engine_tokenize(get(), Data(text), text.size(), flags, tokens.data(),
                                   tokens.size(), &needed));
    return tokens;
  }
  size_t CountTokens(std::string_view text, uint32_t flags = 0) const {
    size_t needed = 0;
    Check(nestling_engine_tokenize(get(), Data(text), text.size(), flags, nullptr, 0, &needed));
    return needed;
  }
  std::string Detokenize(std::span<const int32_t> tokens, bool show_special = false) const {
    static constexpr int32_t kNone = 0;  // an empty span may have no address
    const int32_t* data = tokens.empty() ? &kNone : tokens.data();
    return internal::ReadText([&](char* buffer, size_t capacity, size_t* needed) {
      return nestling_engine_detokenize(get(), data, tokens.size(), show_special ? 1 : 0, buffer,
                                        capacity, needed);
    });
  }
  std::string TokenPiece(int32_t token) const {
    return internal::ReadText([&](char* buffer, size_t capacity, size_t* needed) {
      return nestling_engine_token_piece(get(), token, buffer, capacity, needed);
    });
  }

 private:
  static nestling_engine_options ToC(const EngineOptions& options) {
    auto c_options = MakeStruct<nestling_engine_options>();
    c_options.num_threads = options.num_threads;
    c_options.chunk_tokens = options.chunk_tokens;
    c_options.slice = options.slice.c_str();
    c_options.memory_budget_bytes = options.memory_budget_bytes;
    c_options.target_decode_rate = options.target_decode_rate;
    c_options.budget_context_tokens = options.budget_context_tokens;
    c_options.ple_mode = options.ple_mode;
    c_options.ple_cache_bytes = options.ple_cache_bytes;
    c_options.cache_dir = options.cache_dir.c_str();
    c_options.tower_idle_seconds = options.tower_idle_seconds;
    c_options.soft_token_cache_bytes = options.soft_token_cache_bytes;
    c_options.tower_precision = options.tower_precision;
    c_options.cpu_mask = options.cpu_mask;
    return c_options;
  }
  // An empty view may have no address.
  static const char* Data(std::string_view text) { return text.empty() ? "" : text.data(); }

  struct Destroy {
    void operator()(nestling_engine* engine) const { nestling_engine_destroy(engine); }
  };
  std::unique_ptr<nestling_engine, Destroy> engine_;
};

// A sound that is encoded while it is recorded; one thread at a time.
class AudioStream {
 public:
  explicit AudioStream(const Engine& engine) {
    nestling_audio_stream* stream = nullptr;
    Check(nestling_audio_stream_create(engine.get(), &stream));
    stream_.reset(stream);
  }

  nestling_audio_stream* get() const { return stream_.get(); }

  void Push(std::span<const float> samples) {
    if (!samples.empty()) {
      Check(nestling_audio_stream_push(get(), samples.data(), samples.size()));
    }
  }
  void Finish() { Check(nestling_audio_stream_finish(get())); }
  nestling_audio_stream_info Info() const {
    auto info = MakeStruct<nestling_audio_stream_info>();
    Check(nestling_audio_stream_get_info(get(), &info));
    return info;
  }

 private:
  struct Destroy {
    void operator()(nestling_audio_stream* stream) const { nestling_audio_stream_destroy(stream); }
  };
  std::unique_ptr<nestling_audio_stream, Destroy> stream_;
};

struct EstimateOptions {
  std::string slice;
  uint32_t context_tokens = 0;
  uint32_t chunk_tokens = 0;
  nestling_kv_type kv_type = NESTLING_KV_AUTO;
  bool with_vision = false;
  bool with_audio = false;
  nestling_ple_mode ple_mode = NESTLING_PLE_STREAM;
  uint64_t ple_cache_bytes = 0;
};

inline nestling_memory_estimate EstimateMemory(const std::string& path,
                                               const EstimateOptions& options = {}) {
  auto c_options = MakeStruct<nestling_estimate_options>();
  c_options.slice = options.slice.c_str();
  c_options.context_tokens = options.context_tokens;
  c_options.chunk_tokens = options.chunk_tokens;
  c_options.kv_type = options.kv_type;
  c_options.with_vision = options.with_vision ? 1 : 0;
  c_options.with_audio = options.with_audio ? 1 : 0;
  c_options.ple_mode = options.ple_mode;
  c_options.ple_cache_bytes = options.ple_cache_bytes;
  auto estimate = MakeStruct<nestling_memory_estimate>();
  Check(nestling_estimate_memory(path.c_str(), &c_options, &estimate));
  return estimate;
}

struct SessionOptions {
  uint32_t context_tokens = 0;
  nestling_kv_type kv_type = NESTLING_KV_AUTO;
  uint32_t chunk_tokens = 0;
};

enum class Role : nestling_role {
  kUser = NESTLING_ROLE_USER,
  kAssistant = NESTLING_ROLE_ASSISTANT,
  kSystem = NESTLING_ROLE_SYSTEM,
};

struct GenerateOptions {
  uint32_t max_tokens = 0;
  nestling_sampling sampling = NESTLING_SAMPLING_DEFAULT;
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 0;
  float min_p = 0;
  float repetition_penalty = 0;
  uint32_t repetition_window = 0;
  bool ignore_stop_tokens = false;
  uint64_t seed = 0;
  std::vector<int32_t> stop_tokens;  // empty: the model's
  std::vector<std::string> stop_strings;
  std::string draft_slice;
  uint32_t draft_tokens = 0;
};

// Valid during the callback.
struct Token {
  int32_t id;
  std::string_view text;
};

// true: go on.
using TokenCallback = std::function<bool(const Token&)>;
using LogitsCallback = std::function<bool(size_t index, std::span<const float> logits)>;

// A conversation; one thread at a time, but Cancel() from any.
class Session {
 public:
  explicit Session(const Engine& engine, const SessionOptions& options = {}) {
    auto c_options = MakeStruct<nestling_session_options>();
    c_options.context_tokens = options.context_tokens;
    c_options.kv_type = options.kv_type;
    c_options.chunk_tokens = options.chunk_tokens;
    nestling_session* session = nullptr;
    Check(nestling_session_create(engine.get(), &c_options, &session));
    session_.reset(session);
  }

  nestling_session* get() const { return session_.get(); }

  nestling_session_info Info() const {
    auto info = MakeStruct<nestling_session_info>();
    Check(nestling_session_get_info(get(), &info));
    return info;
  }
  nestling_session_counters Counters() const {
    auto counters = MakeStruct<nestling_session_counters>();
    Check(nestling_session_get_counters(get(), &counters));
    return counters;
  }

  void Reset() { Check(nestling_session_reset(get())); }
  void Cancel() noexcept { nestling_session_cancel(get()); }
  void SetSlice(const std::string& slice) {
    Check(nestling_session_set_slice(get(), slice.c_str()));
  }

  void Prefill(std::span<const int32_t> tokens) {
    if (!tokens.empty()) Check(nestling_session_prefill(get(), tokens.data(), tokens.size()));
  }
  // Stops with an Error of NESTLING_CANCELLED when the callback returns false.
  void Eval(std::span<const int32_t> tokens, const LogitsCallback& callback) {
    if (tokens.empty()) return;
    EvalCall call{callback, {}};
    const nestling_status status =
        nestling_session_eval(get(), tokens.data(), tokens.size(), &EvalCall::Invoke, &call);
    call.keeper.Rethrow();
    Check(status);
  }
  // With images and sounds in the place of placeholders.
  void PrefillMedia(std::span<const int32_t> tokens, std::span<const Part> media) {
    if (tokens.empty() && media.empty()) return;
    Check(nestling_session_prefill_media(get(), Data(tokens), tokens.size(), internal::Data(media),
                                         media.size()));
  }
  void EvalMedia(std::span<const int32_t> tokens, std::span<const Part> media,
                 const LogitsCallback& callback) {
    if (tokens.empty() && media.empty()) return;
    EvalCall call{callback, {}};
    const nestling_status status =
        nestling_session_eval_media(get(), Data(tokens), tokens.size(), internal::Data(media),
                                    media.size(), &EvalCall::Invoke, &call);
    call.keeper.Rethrow();
    Check(status);
  }
  // Borrowed until the next call.
  std::span<const float> Logits() {
    const float* logits = nullptr;
    size_t vocab_size = 0;
    Check(nestling_session_get_logits(get(), &logits, &vocab_size));
    return {logits, vocab_size};
  }
  void Truncate(size_t num_tokens) { Check(nestling_session_truncate(get(), num_tokens)); }

  void AddMessage(Role role, std::string_view text) {
    Check(nestling_session_add_message(get(), static_cast<nestling_role>(role),
                                       text.empty() ? "" : text.data(), text.size()));
  }
  void AddMessage(Role role, std::span<const Part> parts) {
    Check(nestling_session_add_message_parts(get(), static_cast<nestling_role>(role),
                                             internal::Data(parts), parts.size()));
  }

  nestling_generate_result Generate(const GenerateOptions& options = {},
                                    const TokenCallback& callback = nullptr) {
    std::vector<const char*> stop_strings;
    for (const std::string& text : options.stop_strings) stop_strings.push_back(text.c_str());
    auto c_options = MakeStruct<nestling_generate_options>();
    c_options.max_tokens = options.max_tokens;
    c_options.sampling = options.sampling;
    c_options.temperature = options.temperature;
    c_options.top_k = options.top_k;
    c_options.top_p = options.top_p;
    c_options.min_p = options.min_p;
    c_options.repetition_penalty = options.repetition_penalty;
    c_options.repetition_window = options.repetition_window;
    c_options.ignore_stop_tokens = options.ignore_stop_tokens ? 1 : 0;
    c_options.seed = options.seed;
    c_options.stop_tokens = options.stop_tokens.empty() ? nullptr : options.stop_tokens.data();
    c_options.num_stop_tokens = options.stop_tokens.size();
    c_options.stop_strings = stop_strings.empty() ? nullptr : stop_strings.data();
    c_options.num_stop_strings = stop_strings.size();
    c_options.draft_slice = options.draft_slice.c_str();
    c_options.draft_tokens = options.draft_tokens;

    GenerateCall call{callback, {}};
    auto result = MakeStruct<nestling_generate_result>();
    const nestling_status status = nestling_session_generate(
        get(), &c_options, callback ? &GenerateCall::Invoke : nullptr, &call, &result);
    call.keeper.Rethrow();
    Check(status);
    return result;
  }
  // The whole output as text.
  std::string GenerateText(const GenerateOptions& options = {}) {
    std::string text;
    Generate(options, [&text](const Token& token) {
      text += token.text;
      return true;
    });
    return text;
  }

 private:
  static const int32_t* Data(std::span<const int32_t> tokens) {
    return tokens.empty() ? nullptr : tokens.data();
  }
  struct EvalCall {
    const LogitsCallback& callback;
    internal::ExceptionKeeper keeper;
    static int32_t Invoke(void* user, size_t index, const float* logits, size_t vocab_size) {
      auto* call = static_cast<EvalCall*>(user);
      return call->keeper.Run(1, [&] {
        return call->callback(index, {logits, vocab_size}) ? 0 : 1;
      });
    }
  };
  struct GenerateCall {
    const TokenCallback& callback;
    internal::ExceptionKeeper keeper;
    static int32_t Invoke(void* user, const nestling_token* token) {
      auto* call = static_cast<GenerateCall*>(user);
      return call->keeper.Run(1, [&] {
        return call->callback(Token{token->id, {token->text, token->text_bytes}}) ? 0 : 1;
      });
    }
  };
  struct Destroy {
    void operator()(nestling_session* session) const { nestling_session_destroy(session); }
  };
  std::unique_ptr<nestling_session, Destroy> session_;
};

using ProgressCallback = std::function<void(uint64_t done, uint64_t total)>;
using WarningCallback = std::function<void(std::string_view message)>;

namespace internal {

// What the C callbacks of the container functions get as `user`. These cannot stop the work: after
// an exception they are quiet until it ends.
struct ToolCall {
  const ProgressCallback& progress;
  const WarningCallback& warning;
  ExceptionKeeper keeper;

  static void Progress(void* user, uint64_t done, uint64_t total) {
    auto* call = static_cast<ToolCall*>(user);
    if (!call->keeper.failed()) {
      call->keeper.Run(0, [&] { return call->progress(done, total), 0; });
    }
  }
  static void Warning(void* user, const char* message) {
    auto* call = static_cast<ToolCall*>(user);
    if (!call->keeper.failed()) {
      call->keeper.Run(0, [&] { return call->warning(message), 0; });
    }
  }
  void Finish(nestling_status status) {
    keeper.Rethrow();
    Check(status);
  }
};

inline const char* OrNull(const std::string& text) { return text.empty() ? nullptr : text.c_str(); }

}  // namespace internal

// Empty names are the defaults.
struct Quantisation {
  std::string decoder;
  std::string ple;
  std::string embed;
  std::string towers;
};

struct PackOptions {
  Quantisation quantisation;
  std::string slice;
  std::vector<std::string> add_slices;
  uint32_t num_threads = 0;
  bool allow_unknown_config = false;
  ProgressCallback progress;
  WarningCallback warning;
};

inline void Pack(const std::string& source, const std::string& output,
                 const PackOptions& options = {}) {
  internal::ToolCall call{options.progress, options.warning, {}};
  std::vector<const char*> add_slices;
  for (const std::string& path : options.add_slices) add_slices.push_back(path.c_str());
  auto c_options = MakeStruct<nestling_pack_options>();
  c_options.quantisation = internal::OrNull(options.quantisation.decoder);
  c_options.ple_quantisation = internal::OrNull(options.quantisation.ple);
  c_options.embed_quantisation = internal::OrNull(options.quantisation.embed);
  c_options.tower_quantisation = internal::OrNull(options.quantisation.towers);
  c_options.slice = internal::OrNull(options.slice);
  c_options.add_slices = add_slices.empty() ? nullptr : add_slices.data();
  c_options.num_add_slices = add_slices.size();
  c_options.num_threads = options.num_threads;
  c_options.allow_unknown_config = options.allow_unknown_config ? 1 : 0;
  c_options.progress = options.progress ? &internal::ToolCall::Progress : nullptr;
  c_options.warning = options.warning ? &internal::ToolCall::Warning : nullptr;
  c_options.user = &call;
  call.Finish(nestling_pack(source.c_str(), output.c_str(), &c_options));
}

struct SynthesizeOptions {
  std::string preset;
  Quantisation quantisation;
  uint64_t seed = 0;
  uint32_t num_threads = 0;
  ProgressCallback progress;
};

inline void Synthesize(const std::string& output, const SynthesizeOptions& options = {}) {
  const WarningCallback no_warning;
  internal::ToolCall call{options.progress, no_warning, {}};
  auto c_options = MakeStruct<nestling_synthesize_options>();
  c_options.preset = internal::OrNull(options.preset);
  c_options.quantisation = internal::OrNull(options.quantisation.decoder);
  c_options.ple_quantisation = internal::OrNull(options.quantisation.ple);
  c_options.embed_quantisation = internal::OrNull(options.quantisation.embed);
  c_options.tower_quantisation = internal::OrNull(options.quantisation.towers);
  c_options.seed = options.seed;
  c_options.num_threads = options.num_threads;
  c_options.progress = options.progress ? &internal::ToolCall::Progress : nullptr;
  c_options.user = &call;
  call.Finish(nestling_synthesize(output.c_str(), &c_options));
}

struct PrepareOptions {
  std::string cache_dir;
  std::string slice;
  uint32_t num_threads = 0;
  nestling_tower_precision tower_precision = NESTLING_TOWER_AUTO;
  bool in_place = false;
  std::string output;  // with in_place; "": the model itself
};

inline nestling_prepare_outcome Prepare(const std::string& path, const PrepareOptions& options = {},
                                        const ProgressCallback& progress = nullptr) {
  const WarningCallback no_warning;
  internal::ToolCall call{progress, no_warning, {}};
  nestling_prepare_outcome outcome = NESTLING_PREPARE_DONE;
  auto c_options = MakeStruct<nestling_prepare_options>();
  c_options.cache_dir = options.cache_dir.c_str();
  c_options.slice = options.slice.c_str();
  c_options.num_threads = options.num_threads;
  c_options.tower_precision = options.tower_precision;
  c_options.progress = progress ? &internal::ToolCall::Progress : nullptr;
  c_options.user = &call;
  c_options.in_place = options.in_place ? 1 : 0;
  c_options.output = options.output.c_str();
  c_options.out_outcome = &outcome;
  call.Finish(nestling_prepare(path.c_str(), &c_options));
  return outcome;
}

inline void Verify(const std::string& path, const ProgressCallback& progress = nullptr) {
  const WarningCallback no_warning;
  internal::ToolCall call{progress, no_warning, {}};
  call.Finish(
      nestling_verify(path.c_str(), progress ? &internal::ToolCall::Progress : nullptr, &call));
}

// One JSON object.
inline std::string Inspect(const std::string& path) {
  return internal::ReadText([&](char* buffer, size_t capacity, size_t* needed) {
    return nestling_inspect(path.c_str(), buffer, capacity, needed);
  });
}

inline nestling_process_memory ProcessMemory() {
  auto memory = MakeStruct<nestling_process_memory>();
  Check(nestling_process_get_memory(&memory));
  return memory;
}

}  // namespace v0
}  // namespace nestling

#endif  // NESTLING_NESTLING_HPP_
