#include "cacheservice/replay/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>
#include <string>

#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kGood[] = R"({"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [7, 9]})";

std::string Write(const test::TempDir& directory, const std::string& text) {
  const std::string path = directory.path() + "/trace.jsonl";
  std::ofstream(path) << text;
  return path;
}

TEST(TraceTest, BlocksAreNumberedInTheOrderOfTheirFirstMention) {
  Trace trace;
  ASSERT_TRUE(trace.Add({700, 18446744073709551615u, 3}).ok());
  ASSERT_TRUE(trace.Add({}).ok());
  ASSERT_TRUE(trace.Add({700, 5}).ok());
  EXPECT_EQ(trace.requests(), 3u);
  EXPECT_EQ(trace.references(), 5u);
  EXPECT_EQ(trace.distinct_blocks(), 4u);
  EXPECT_THAT(trace.Request(0), ElementsAre(0, 1, 2));
  EXPECT_THAT(trace.Request(1), IsEmpty());
  EXPECT_THAT(trace.Request(2), ElementsAre(0, 3));
}

TEST(TraceTest, PlainAndGzipFilesAreTheSame) {
  const test::TempDir directory;
  const std::string text = std::string(kGood) + "\n\n" + kGood;  // an empty line, and no newline at the end
  const std::string plain = Write(directory, text), packed = directory.path() + "/trace.gz";
  const gzFile file = gzopen(packed.c_str(), "wb");
  ASSERT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())), static_cast<int>(text.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
  for (const std::string& path : {plain, packed}) {
    const absl::StatusOr<Trace> trace = Trace::Read(path);
    ASSERT_TRUE(trace.ok()) << trace.status();
    EXPECT_EQ(trace->requests(), 2u);
    EXPECT_THAT(trace->Request(1), ElementsAre(0, 1));
  }
}

TEST(TraceTest, ABadLineIsNamedByNumberAndField) {
  const test::TempDir directory;
  const struct {
    const char* line;
    const char* named;
  } cases[] = {
      {"nonsense", "JSON object"},
      {"[1]", "JSON object"},
      {"{\"timestamp\": 1", "JSON object"},
      {R"({"input_length": 1, "output_length": 1, "hash_ids": []})", "timestamp is missing"},
      {R"({"timestamp": "now", "input_length": 1, "output_length": 1, "hash_ids": []})", "timestamp: \"now\""},
      {R"({"timestamp": 1, "input_length": -1, "output_length": 1, "hash_ids": []})", "input_length: -1"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": null, "hash_ids": []})", "output_length: null"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1})", "hash_ids is missing"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": 4})", "hash_ids is not a list"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [4, -5]})", "hash_ids[1]: -5"},
      {R"({"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1.5]})", "hash_ids[0]: 1.5"},
      {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [\"\xff\"]}", "JSON object"},
  };
  for (const auto& c : cases) {
    const absl::StatusOr<Trace> trace = Trace::Read(Write(directory, std::string(kGood) + "\n" + c.line + "\n"));
    EXPECT_TRUE(absl::IsInvalidArgument(trace.status())) << c.line << ": " << trace.status();
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr("line 2: "));
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(c.named));
  }
}

TEST(TraceTest, ALineHasALimit) {
  const test::TempDir directory;
  const absl::StatusOr<Trace> trace = Trace::Read(Write(directory, std::string(Trace::kMaxLineBytes + 1, ' ') + kGood));
  EXPECT_TRUE(absl::IsResourceExhausted(trace.status())) << trace.status();
  EXPECT_THAT(std::string(trace.status().message()), HasSubstr("line 1: "));
}

TEST(TraceTest, WhatCannotBeReadIsSaid) {
  const test::TempDir directory;
  EXPECT_TRUE(absl::IsNotFound(Trace::Read(directory.path() + "/absent").status()));
  const std::string whole = test::ReadFile(test::DataPath("traces/conversation_trace.jsonl.gz"));
  const absl::StatusOr<Trace> cut = Trace::Read(Write(directory, whole.substr(0, whole.size() / 2)));
  EXPECT_FALSE(cut.ok()) << "a file that ends in the middle of its packed data";
}

}  // namespace
}  // namespace tidepool
