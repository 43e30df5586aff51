// SPDX-License-Identifier: Apache-2.0
// The PLE table under a session: where rows come from changes nothing, and storage that fails is
// an error of one call.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "model/slices.h"
#include "runtime/session.h"
#include "tests/ple/faulty_storage.h"
#include "tests/support/tiny_model.h"

namespace nestling {
namespace {

using testing::FaultyStorage;
using testing::Mechanism;
using testing::TemporaryPath;
using testing::TinyModelOptions;

std::unique_ptr<Engine> OpenEngine(const TinyModelOptions& model, EngineOptions options) {
  const TemporaryPath file;
  EXPECT_TRUE(testing::WriteTinyModel(file.path(), model).ok());
  options.num_threads = 1;
  auto engine = Engine::Create(file.path(), options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(engine).value() : nullptr;
}

std::unique_ptr<Session> OpenSession(const Engine& engine, uint32_t chunk_tokens = 0) {
  SessionOptions options;
  options.chunk_tokens = chunk_tokens;
  auto session = Session::Create(engine, options);
  EXPECT_TRUE(session.ok()) << session.status().message();
  return session.ok() ? std::move(session).value() : nullptr;
}

std::vector<int32_t> Tokens(size_t count) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>((i * i * 37 + 11) % 96));
  return tokens;
}

// Random enough that no token comes twice in a row.
GenerateOptions Sampled(uint32_t count) {
  GenerateOptions options;
  options.max_tokens = count;
  options.sampling.temperature = 4;
  options.sampling.seed = 3;
  options.ignore_stop_tokens = true;
  return options;
}

// A prompt in chunks, then tokens one by one: every logit and every token.
struct Trace {
  std::vector<float> logits;
  std::vector<int32_t> ids;
};

Trace RunAll(Session& session) {
  Trace trace;
  const auto row = [&](size_t, std::span<const float> logits) {
    trace.logits.insert(trace.logits.end(), logits.begin(), logits.end());
    return OkStatus();
  };
  EXPECT_TRUE(session.PrefillWithLogits(Tokens(40), row).ok());
  const auto result = session.Generate(Sampled(30), [&](const GeneratedToken& token) {
    trace.ids.push_back(token.id);
    return true;
  });
  EXPECT_TRUE(result.ok()) << result.status().message();
  const auto last = session.Logits();
  EXPECT_TRUE(last.ok());
  if (last.ok()) trace.logits.insert(trace.logits.end(), last->begin(), last->end());
  return trace;
}

void ExpectSameBits(const Trace& got, const Trace& want) {
  EXPECT_EQ(got.ids, want.ids);
  ASSERT_EQ(got.logits.size(), want.logits.size());
  EXPECT_EQ(std::memcmp(got.logits.data(), want.logits.data(), want.logits.size() * sizeof(float)),
            0);
}

TEST(PleModesTest, StreamedEqualsResidentEqualsMappedToTheBit) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kQ8C, DType::kQ4C, DType::kQ4B32}) {
    TinyModelOptions model;
    model.ple_dtype = dtype;
    const auto resident = OpenEngine(model, {.ple_mode = PleMode::kResident});
    const Trace want = RunAll(*OpenSession(*resident, 7));
    EXPECT_EQ(want.ids.size(), 30u);
    const auto mapped = OpenEngine(model, {.ple_mode = PleMode::kMmap});
    ExpectSameBits(RunAll(*OpenSession(*mapped, 7)), want);
    for (const Mechanism mechanism :
         {Mechanism::kIoUring, Mechanism::kThreads, Mechanism::kThreadsOnly}) {
      for (const uint64_t cache_bytes : {1, 5000, 0}) {  // none, a few rows, all
        FaultyStorage storage(mechanism);
        const auto streamed =
            OpenEngine(model, {.ple_cache_bytes = cache_bytes, .ple_storage = &storage});
        ExpectSameBits(RunAll(*OpenSession(*streamed, 7)), want);
        EXPECT_GT(storage.num_reads(), 0u);
      }
    }
  }
}

TEST(PleModesTest, OneWrongRowWouldShow) {
  // Else the test above shows nothing.
  TinyModelOptions model;
  model.ple_values_encode_index = true;
  const auto engine = OpenEngine(model, {});
  const auto session = OpenSession(*engine), other = OpenSession(*engine);
  const std::vector<int32_t> tokens = {5, 6, 7}, changed = {5, 8, 7};
  ASSERT_TRUE(session->Prefill(tokens).ok());
  ASSERT_TRUE(other->Prefill(changed).ok());
  EXPECT_NE(session->Logits()->front(), other->Logits()->front());
}

TEST(PleModesTest, SlicesOfOneEngineReadTheirOwnLayers) {
  TinyModelOptions model;
  SliceConfig early;
  early.name = "early";
  early.skip_layers = {8, 9};
  early.ffn = std::vector<uint32_t>(8, 128);
  const auto fresh = [&] { return OpenEngine(model, {.ple_mode = PleMode::kResident}); };
  const auto resident = fresh();
  const auto want_session = OpenSession(*resident);
  if (const Status status = want_session->SetSlice(early); !status.ok()) {
    FAIL() << status.message();
  }
  const Trace want = RunAll(*want_session), want_whole = RunAll(*OpenSession(*resident));
  for (const bool early_first : {true, false}) {
    const auto streamed = OpenEngine(model, {});
    const auto session = OpenSession(*streamed), whole = OpenSession(*streamed);
    ASSERT_TRUE(session->SetSlice(early).ok());
    if (early_first) {
      ExpectSameBits(RunAll(*session), want);
      ExpectSameBits(RunAll(*whole), want_whole);
      // 8 of 10 layers.
      EXPECT_EQ(session->counters().ple_bytes_read,
                session->counters().ple_misses * streamed->ple().table().row_bytes() / 10 * 8);
    } else {
      ExpectSameBits(RunAll(*whole), want_whole);
      ExpectSameBits(RunAll(*session), want);
    }
  }
}

class PleFaultsTest : public ::testing::TestWithParam<Mechanism> {};

INSTANTIATE_TEST_SUITE_P(All, PleFaultsTest,
                         ::testing::Values(Mechanism::kIoUring, Mechanism::kThreads,
                                           Mechanism::kThreadsOnly),
                         [](const auto& values) { return testing::MechanismName(values.param); });

TEST_P(PleFaultsTest, FaultsThatPassChangeNothing) {
  const auto clean = OpenEngine({}, {});
  const Trace want = RunAll(*OpenSession(*clean, 7));
  for (const FaultyStorage::Fault fault : {FaultyStorage::kShort, FaultyStorage::kInterrupted}) {
    FaultyStorage storage(GetParam());
    storage.Set(fault);
    const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
    ExpectSameBits(RunAll(*OpenSession(*engine, 7)), want);
  }
}

TEST_P(PleFaultsTest, AFailedReadFailsThePrefillAndTheSessionGoesOn) {
  const auto clean = OpenEngine({}, {});
  const Trace want = RunAll(*OpenSession(*clean, 7));
  for (const FaultyStorage::Fault fault :
       {FaultyStorage::kInputOutput, FaultyStorage::kEnd, FaultyStorage::kAlwaysInterrupted}) {
    FaultyStorage storage(GetParam());
    const auto engine = OpenEngine({}, {.ple_storage = &storage});
    const auto session = OpenSession(*engine, 7);
    storage.Set(fault);
    const Status status = session->Prefill(Tokens(40));
    EXPECT_EQ(status.code(), StatusCode::kIoError);
    EXPECT_NE(status.message().find("PLE table"), std::string::npos) << status.message();
    EXPECT_EQ(session->num_tokens(), 0u);
    storage.Set(FaultyStorage::kNone);
    ExpectSameBits(RunAll(*session), want);
  }
}

TEST_P(PleFaultsTest, AFailedPrefetchOfALaterChunkKeepsTheChunksBefore) {
  const auto clean = OpenEngine({}, {});
  const auto reference = OpenSession(*clean, 10);
  ASSERT_TRUE(reference->Prefill(Tokens(40)).ok());
  FaultyStorage storage(GetParam());
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
  const auto session = OpenSession(*engine, 10);
  // The fault begins while the second chunk runs.
  const Status status =
      session->PrefillWithLogits(Tokens(40), [&](size_t index, std::span<const float>) {
        if (index == 10) storage.Set(FaultyStorage::kInputOutput);
        return OkStatus();
      });
  EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
  const uint32_t kept = session->num_tokens();
  EXPECT_GE(kept, 20u);
  EXPECT_LT(kept, 40u);
  EXPECT_EQ(kept % 10, 0u);
  storage.Set(FaultyStorage::kNone);
  const std::vector<int32_t> tokens = Tokens(40);
  ASSERT_TRUE(session->Prefill(std::span(tokens).subspan(kept)).ok());
  const auto got = session->Logits(), want = reference->Logits();
  ASSERT_TRUE(got.ok() && want.ok());
  EXPECT_EQ(std::memcmp(got->data(), want->data(), want->size_bytes()), 0);
}

TEST_P(PleFaultsTest, AFailedReadInDecodeEndsTheReplyAndTheNextCallGoesOn) {
  const auto clean = OpenEngine({}, {});
  FaultyStorage storage(GetParam());
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
  const auto session = OpenSession(*engine), reference = OpenSession(*clean);
  ASSERT_TRUE(session->Prefill(Tokens(40)).ok());
  ASSERT_TRUE(reference->Prefill(Tokens(40)).ok());
  std::vector<int32_t> ids;
  const auto collect = [&](const GeneratedToken& token) {
    ids.push_back(token.id);
    if (ids.size() == 12) storage.Set(FaultyStorage::kInputOutput);
    return true;
  };
  const auto failed = session->Generate(Sampled(30), collect);
  EXPECT_EQ(failed.status().code(), StatusCode::kIoError);
  EXPECT_GE(ids.size(), 12u);
  EXPECT_LE(ids.size(), 13u);  // the row after the 12th token's may have been there
  // As long as storage fails, so does every call; nothing is lost.
  EXPECT_EQ(session->Logits().status().code(), StatusCode::kIoError);
  EXPECT_EQ(session->num_tokens(), 40 + ids.size());
  storage.Set(FaultyStorage::kNone);
  ASSERT_TRUE(reference->Generate(Sampled(static_cast<uint32_t>(ids.size())), {}).ok());
  const auto got = session->Logits(), want = reference->Logits();
  ASSERT_TRUE(got.ok() && want.ok());
  EXPECT_EQ(std::memcmp(got->data(), want->data(), want->size_bytes()), 0);
  EXPECT_TRUE(session->Generate(Sampled(5), {}).ok());
}

TEST_P(PleFaultsTest, AFileThatIsTruncatedInUseFailsTheCallOnly) {
  const TemporaryPath file;
  ASSERT_TRUE(testing::WriteTinyModel(file.path(), {}).ok());
  FaultyStorage storage(GetParam());
  auto engine = Engine::Create(file.path(), {.num_threads = 1, .ple_storage = &storage});
  ASSERT_TRUE(engine.ok());
  const auto session = OpenSession(**engine);
  const std::vector<int32_t> known = {4, 5, 6}, unknown = {80, 81};
  ASSERT_TRUE(session->Prefill(known).ok());
  const SectionInfo* ple = (*engine)->container().FindSection(SectionKind::kPle);
  ASSERT_NE(ple, nullptr);
  ASSERT_EQ(truncate(file.path().c_str(), static_cast<off_t>(ple->offset + 1)), 0);
  EXPECT_EQ(session->Prefill(unknown).code(), StatusCode::kIoError);
  EXPECT_EQ(session->num_tokens(), 3u);
  EXPECT_TRUE(session->Prefill(known).ok());  // from the cache
}

TEST(PlePrefetchTest, ASampledTokensRowIsAskedForBeforeTheCallback) {
  FaultyStorage storage(Mechanism::kThreads);
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
  const auto session = OpenSession(*engine);
  ASSERT_TRUE(session->Prefill(Tokens(4)).ok());
  const size_t before = storage.num_reads();
  size_t seen = 0;
  ASSERT_TRUE(session
                  ->Generate(Sampled(10),
                             [&](const GeneratedToken&) {
                               // But for the last token's: no step needs it.
                               if (++seen < 10) {
                                 EXPECT_EQ(storage.num_reads(), before + seen);
                               }
                               return true;
                             })
                  .ok());
  EXPECT_EQ(storage.num_reads(), before + 9);
}

TEST(PlePrefetchTest, TheNextChunksRowsAreAskedForBeforeAChunkRuns) {
  FaultyStorage storage(Mechanism::kThreads);
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
  const auto session = OpenSession(*engine, 4);
  // Rows that are no neighbours: one read each.
  const std::vector<int32_t> tokens = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22};
  ASSERT_TRUE(session
                  ->PrefillWithLogits(tokens,
                                      [&](size_t index, std::span<const float>) {
                                        const size_t chunk = index / 4;
                                        EXPECT_EQ(storage.num_reads(),
                                                  std::min<size_t>(12, 4 * (chunk + 2)));
                                        return OkStatus();
                                      })
                  .ok());
}

TEST(PlePrefetchTest, SlowStorageIsWaitedForAndCounted) {
  FaultyStorage storage(Mechanism::kThreadsOnly);
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 1, .ple_storage = &storage});
  const auto session = OpenSession(*engine);
  storage.CloseGate();
  std::thread prefill([&] { EXPECT_TRUE(session->Prefill(Tokens(10)).ok()); });
  storage.OpenGate();
  prefill.join();
  EXPECT_GT(session->counters().ple_wait_seconds, 0.0);
  EXPECT_EQ(session->num_tokens(), 10u);
}

TEST(PleSharingTest, SessionsOfTwoThreadsShareASmallCache) {
  const auto engine = OpenEngine({}, {.ple_cache_bytes = 20000});
  const Trace want = RunAll(*OpenSession(*engine, 7));
  Trace got[2];
  std::thread a([&] { got[0] = RunAll(*OpenSession(*engine, 7)); });
  std::thread b([&] { got[1] = RunAll(*OpenSession(*engine, 7)); });
  a.join();
  b.join();
  ExpectSameBits(got[0], want);
  ExpectSameBits(got[1], want);
}

TEST(PleSharingTest, CountersSayWhereRowsCameFrom) {
  const auto engine = OpenEngine({}, {});
  const auto session = OpenSession(*engine), other = OpenSession(*engine);
  const std::vector<int32_t> tokens = {1, 2, 3, 2, 1};
  ASSERT_TRUE(session->Prefill(tokens).ok());
  EXPECT_EQ(session->counters().ple_rows_read, 5u);
  EXPECT_EQ(session->counters().ple_misses, 3u);
  EXPECT_EQ(session->counters().ple_hits, 0u);
  EXPECT_EQ(session->counters().ple_bytes_read, 3 * engine->ple().table().row_bytes());
  ASSERT_TRUE(other->Prefill(tokens).ok());
  EXPECT_EQ(other->counters().ple_misses, 0u);
  EXPECT_EQ(other->counters().ple_hits, 3u);
  EXPECT_EQ(other->counters().ple_bytes_read, 0u);
  EXPECT_GT(engine->memory().ple_cache, 0u);
  EXPECT_EQ(engine->memory().ple_resident, 0u);
}

}  // namespace
}  // namespace nestling
