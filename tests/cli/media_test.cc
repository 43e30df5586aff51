// SPDX-License-Identifier: Apache-2.0
// Images and sounds on the command line, against the reference's values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/cli/media_files.h"
#include "tests/cli/tool.h"

namespace nestling::testing {
namespace {

using ::testing::HasSubstr;
using Arguments = std::vector<std::string>;

// The reference's f32 soft tokens, of rms 1, differ from its f64 ones by 1e-5: twenty times that.
constexpr float kSoftTokenTolerance = 2e-4f;

Arguments Call(const std::string& command, const Arguments& more) {
  Arguments call = {command, GetMediaFiles().model, "--threads", "1"};
  call.insert(call.end(), more.begin(), more.end());
  return call;
}

float LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
  }
  return largest;
}

// ---- encode ----

// Soft tokens of a file, and what the tool says about them.
std::pair<Npy, nlohmann::json> Encode(const Arguments& more) {
  const TemporaryFolder folder;
  Arguments call = Call("encode", {"--dump", folder / "x.npy"});
  call.insert(call.end(), more.begin(), more.end());
  const nlohmann::json json = ParseOutput(RunTool(call));
  return {ReadNpy(folder / "x.npy"), json};
}

TEST(EncodeTest, ImageFilesAndPreparedImagesGiveTheReferencesSoftTokens) {
  for (const std::string& file : {GetMediaFiles().image, GetMediaFiles().prepared}) {
    SCOPED_TRACE(file);
    const auto [npy, json] = Encode({"--image", file});
    EXPECT_THAT(npy.dictionary, HasSubstr("'shape': (16, 64)"));
    EXPECT_LT(LargestDifference(npy.values, GetMultimodalExpected().image_soft_tokens),
              kSoftTokenTolerance);
    EXPECT_EQ(json["soft_tokens"], 16);
    EXPECT_EQ(json["positions"], 16);
    EXPECT_GT(json["tower_bytes"], 0);
  }
}

TEST(EncodeTest, SoundFilesAndSamplesGiveTheReferencesSoftTokens) {
  for (const std::string& file : {GetMediaFiles().sound, GetMediaFiles().pcm}) {
    SCOPED_TRACE(file);
    const auto [npy, json] = Encode({"--audio", file});
    EXPECT_THAT(npy.dictionary, HasSubstr("'shape': (13, 64)"));
    EXPECT_LT(LargestDifference(npy.values, GetMultimodalExpected().audio_soft_tokens),
              kSoftTokenTolerance);
    EXPECT_EQ(json["positions"], 20);
    EXPECT_EQ(json["clips"], 1);
  }
}

TEST(EncodeTest, SoundLongerThanAClipIsEncodedInSeveral) {
  const TemporaryFolder folder;
  const std::vector<float> samples(4 * 16000, 0.1f);  // a clip of this model has 3.2 s
  WriteWholeFile(folder / "long.wav", WavOf(samples));
  const auto [npy, json] = Encode({"--audio", folder / "long.wav"});
  EXPECT_EQ(json["clips"], 2);
  EXPECT_EQ(json["positions"], 40);
  EXPECT_EQ(npy.values.size(), json["soft_tokens"].get<size_t>() * 64);
}

TEST(EncodeTest, TheTowerCanComputeInInt8) {
  const std::vector<float> f32 = Encode({"--image", GetMediaFiles().image}).first.values;
  const std::vector<float> int8 =
      Encode({"--image", GetMediaFiles().image, "--tower", "int8"}).first.values;
  double product = 0, f32_square = 0, int8_square = 0;
  for (size_t i = 0; i < f32.size(); ++i) {
    product += double{f32[i]} * int8.at(i);
    f32_square += double{f32[i]} * f32[i];
    int8_square += double{int8[i]} * int8[i];
  }
  const double cosine = product / std::sqrt(f32_square * int8_square);
  EXPECT_GT(cosine, 0.98);
  EXPECT_LT(cosine, 0.99999);
}

TEST(EncodeTest, ACallWithoutOrWithTwoFilesIsWrong) {
  ExpectFailure(RunTool(Call("encode", {"--dump", "x.npy"})), 2, "one --image or --audio");
  ExpectFailure(RunTool(Call("encode", {"--dump", "x.npy", "--image", GetMediaFiles().image,
                                        "--audio", GetMediaFiles().sound})),
                2, "one --image or --audio");
  ExpectFailure(RunTool(Call("encode", {"--image", GetMediaFiles().image})), 2, "--dump");
}

TEST(EncodeTest, FilesThatAreNoneOrCutOffEndWithOneLine) {
  const TemporaryFolder folder;
  const auto refused = [&](const char* option, const std::string& file, const std::string& part) {
    SCOPED_TRACE(file);
    ExpectFailure(RunTool(Call("encode", {option, file, "--dump", folder / "x.npy"})), 1, part);
    EXPECT_FALSE(std::filesystem::exists(folder / "x.npy"));
  };
  refused("--image", folder / "none.png", "none.png");
  refused("--audio", folder / "none.wav", "none.wav");
  refused("--image", GetMediaFiles().sound, "not a PNG");
  refused("--audio", GetMediaFiles().image, GetMediaFiles().image);
  const auto cut = [&](const std::string& name, const std::string& whole) {
    const std::string bytes = ReadWholeFile(whole);
    WriteWholeFile(folder / name, bytes.substr(0, bytes.size() - 100));
    return folder / name;
  };
  refused("--audio", cut("cut.wav", GetMediaFiles().sound), "cut off");
  refused("--image", cut("cut.npy", GetMediaFiles().prepared), "bytes of values");
  // Far more pixels than there are bytes for.
  std::string bomb = ReadWholeFile(GetMediaFiles().image);
  bomb.replace(18, 8, std::string("\x30\x75\0\0\x30\x75\0\0", 8));  // 30,000 x 30,000
  WriteWholeFile(folder / "bomb.bmp", bomb);
  refused("--image", folder / "bomb.bmp", "30000 x 30000");
  const std::vector<float> short_sound(512, 0.1f);
  WriteWholeFile(folder / "short.wav", WavOf(short_sound));
  refused("--audio", folder / "short.wav", "512");
}

TEST(EncodeTest, NumpyFilesMustBeF32InOrderAndOfTheRightShape) {
  const TemporaryFolder folder;
  const std::vector<float> values(3 * 4 * 4, 0.5f);
  const std::string path = folder / "in.npy";
  const auto refused = [&](const char* option, const std::string& part) {
    SCOPED_TRACE(part);
    ExpectFailure(RunTool(Call("encode", {option, path, "--dump", folder / "x.npy"})), 1, part);
  };
  WriteNpyOf(path, "(4, 4, 3)", values);
  refused("--image", "[4, 4, 3]");
  WriteNpyOf(path, "(3, 4, 4)", values);  // another size than the tower's
  refused("--image", "want 110592 (3 x 192 x 192)");
  refused("--audio", "want [samples]");
  WriteNpyOf(path, "(3, 4, 5)", values);
  refused("--image", "192 bytes of values, want 240");
  WriteNpyOf(path, "(3, 4294967296, 4294967296)", values);
  refused("--image", "4294967296");
  WriteNpyOf(path, "(3, -4, 4)", values);
  refused("--image", "a shape that is none");
  WriteNpyOf(path, "3, 4, 4", values);
  refused("--image", "a shape that is none");
  WriteNpy(path, "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4, 4), }", values);
  refused("--image", "want f32");
  WriteNpy(path, "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 4, 4), }", values);
  refused("--image", "C order");
  WriteNpy(path, "{}", values);
  refused("--image", "a shape that is none");
  WriteWholeFile(path, std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12));
  refused("--image", "a header of 4294967295 bytes");
  WriteWholeFile(path, "\x93NUMP");
  refused("--image", "cut off");
  WriteWholeFile(path, "text that is longer");
  refused("--image", "not a NumPy file");
}

// ---- eval ----

std::string List(const std::vector<int32_t>& tokens) {
  std::string list;
  for (const int32_t token : tokens) list += std::to_string(token) + ",";
  return list;
}

TEST(MediaEvalTest, LogitsAndGreedyTokensAreTheReferencesWithChunksOfAnySize) {
  const MultimodalExpected& expected = GetMultimodalExpected();
  for (const char* chunk : {"0", "1", "7", "16"}) {
    SCOPED_TRACE(chunk);
    const TemporaryFolder folder;
    const nlohmann::json greedy = ParseOutput(RunTool(
        Call("eval", {"--tokens", List(expected.input_ids), "--audio", GetMediaFiles().sound,
                      "--image", GetMediaFiles().image, "--chunk", chunk, "--kv", "f32", "--dump",
                      folder / "x.npy", "--greedy", std::to_string(expected.greedy.size())})));
    EXPECT_LT(LargestDifference(ReadNpy(folder / "x.npy").values, expected.logits),
              expected.logits_tolerance);
    EXPECT_EQ(greedy.get<std::vector<int32_t>>(), expected.greedy);
  }
}

TEST(MediaEvalTest, PlaceholdersAndContentMustAgree) {
  const std::string tokens = List(GetMultimodalExpected().input_ids);
  const std::string& image = GetMediaFiles().image;
  ExpectFailure(RunTool(Call("eval", {"--tokens", tokens, "--greedy", "2"})), 1, "placeholder");
  ExpectFailure(RunTool(Call("eval", {"--tokens", tokens, "--image", image, "--greedy", "2"})), 1,
                "placeholder");
  ExpectFailure(RunTool(Call("eval", {"--tokens", "2,5,9", "--image", image, "--greedy", "2",
                                      "--context", "64"})),
                1, "placeholder");
  ExpectFailure(RunTool(Call("eval", {"--tokens", "2,5,9", "--image", image})), 2, "--dump");
}

// ---- run ----

std::string Reply(const Arguments& more) {
  Arguments call = {"--temperature", "0", "--max-tokens", "12"};
  call.insert(call.end(), more.begin(), more.end());
  const ToolResult result = RunTool(Call("run", call));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  return result.out;
}

TEST(MediaRunTest, ImagesAndSoundsComeBeforeTheTextInTheOrderOfTheCommandLine) {
  const std::string& image = GetMediaFiles().image;
  const std::string& sound = GetMediaFiles().sound;
  const auto raw = [&](const std::string& content) {
    return Reply({"--raw", "--image", image, "--audio", sound, "-p",
                  "<start_of_turn>user\n" + content + "<end_of_turn>\n<start_of_turn>model\n"});
  };
  const std::string image_first = Reply({"--image", image, "--audio", sound, "-p", "hello"});
  EXPECT_EQ(image_first, raw("<image_soft_token><audio_soft_token>hello"));
  const std::string sound_first = Reply({"--audio", sound, "-p", "hello", "--image", image});
  EXPECT_EQ(sound_first, raw("<audio_soft_token><image_soft_token>hello"));
  EXPECT_NE(image_first, sound_first);
}

TEST(MediaRunTest, StatsCountTowersAndTheSecondUseOfAnImageCostsNothing) {
  const std::string& image = GetMediaFiles().image;
  const ToolResult result =
      RunTool(Call("run", {"--image", image, "--image", image, "--audio", GetMediaFiles().sound,
                           "-p", "hello", "--max-tokens", "2", "--stats"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json stats = nlohmann::json::parse(result.err, nullptr, false);
  ASSERT_FALSE(stats.is_discarded()) << result.err;
  EXPECT_EQ(stats["vision_loads"], 1);
  EXPECT_EQ(stats["vision_encodes"], 1);
  EXPECT_EQ(stats["audio_encodes"], 1);
  EXPECT_EQ(stats["soft_token_cache_hits"], 1);
  EXPECT_EQ(stats["soft_token_cache_misses"], 2);
  EXPECT_GT(stats["vision_encode_seconds"], 0.0);
  EXPECT_GT(stats["tower_bytes"], 0);
}

TEST(MediaRunTest, TextAloneLoadsNoTower) {
  const ToolResult result = RunTool(Call("run", {"-p", "hello", "--max-tokens", "2", "--stats"}));
  const nlohmann::json stats = nlohmann::json::parse(result.err, nullptr, false);
  ASSERT_FALSE(stats.is_discarded()) << result.err;
  EXPECT_EQ(stats["vision_loads"], 0);
  EXPECT_EQ(stats["audio_loads"], 0);
  EXPECT_EQ(stats["tower_bytes"], 0);
}

TEST(MediaRunTest, ABadFileOrAModelWithoutTowersIsSaidInOneLine) {
  ExpectFailure(RunTool(Call("run", {"--image", "/no/such.png", "-p", "hello"})), 1,
                "/no/such.png");
  ExpectFailure(RunTool({"run", ChatModel(), "--image", GetMediaFiles().image, "-p", "hello"}), 1,
                "vision");
  ExpectFailure(RunTool({"run", ChatModel(), "--audio", GetMediaFiles().sound, "-p", "hello"}), 1,
                "audio");
}

// ---- bench ----

TEST(MediaBenchTest, ImagesAndSoundsHaveARowEachInTheOrderOfTheCommandLine) {
  const nlohmann::json json =
      ParseOutput(RunTool(Call("bench", {"--audio", GetMediaFiles().sound, "--image",
                                         GetMediaFiles().image, "-r", "2", "-o", "json"})));
  ASSERT_EQ(json["tests"].size(), 2u);
  const nlohmann::json& sound = json["tests"][0];
  const nlohmann::json& image = json["tests"][1];
  EXPECT_EQ(sound["test"], "audio " + GetMediaFiles().sound);
  EXPECT_NEAR(sound["seconds_of_sound"].get<double>(),
              static_cast<double>(GetMultimodalExpected().waveform.size()) / 16000, 1e-9);
  EXPECT_NEAR(sound["real_time_factor"].get<double>(),
              sound["median_ms"].get<double>() / 1e3 / sound["seconds_of_sound"].get<double>(),
              1e-9);
  EXPECT_EQ(image["soft_tokens"], 16);
  EXPECT_TRUE(image["real_time_factor"].is_null());
  for (const nlohmann::json& row : json["tests"]) {
    EXPECT_EQ(row["repetitions"], 2);
    EXPECT_GT(row["load_ms"], 0.0);
    EXPECT_GT(row["median_ms"], 0.0);
    EXPECT_GT(row["first_ms"], row["load_ms"]);
    EXPECT_GT(row["tower_bytes"], 0);
  }
}

TEST(MediaBenchTest, OtherFormatsHaveTheSameRows) {
  const Arguments more = {"--image", GetMediaFiles().image, "-r", "1", "-o"};
  const auto output = [&](const char* format) {
    Arguments call = Call("bench", more);
    call.push_back(format);
    return RunTool(call).out;
  };
  EXPECT_THAT(output("table"), HasSubstr("image " + GetMediaFiles().image));
  EXPECT_THAT(output("md"), HasSubstr("| image " + GetMediaFiles().image));
  const std::string csv = output("csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 2);
  EXPECT_EQ(nlohmann::json::parse(output("jsonl"))["soft_tokens"], 16);
  ExpectFailure(RunTool(Call("bench", {"--image", GetMediaFiles().image, "-p", "8"})), 2,
                "without -p");
}

}  // namespace
}  // namespace nestling::testing
