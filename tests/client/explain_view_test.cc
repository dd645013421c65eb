#include "client/cli/explain_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tidepool::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using Result = Explanation::Block::Result;

constexpr int kBlocks = 5, kLayers = 4;

v1::ListBlockKeysResponse Keys() {
  v1::ListBlockKeysResponse keys;
  keys.set_block_tokens(64);
  keys.set_layers(kLayers);
  keys.set_tenant("acme");
  keys.set_usable_blocks(kBlocks - 1);
  for (int i = 0; i < kBlocks; ++i) keys.add_keys(std::string(16, static_cast<char>(i)));
  for (int i = 0; i < kBlocks * 64 + 3; ++i) keys.add_token_ids(i);
  return keys;
}

// All blocks in memory, but the last, which is nowhere.
v1::ExplainResponse Answer() {
  v1::ExplainResponse answer;
  for (int i = 0; i < kBlocks; ++i) {
    v1::BlockPlace& place = *answer.add_blocks();
    if (i + 1 < kBlocks) {
      place.set_memory_layers(kLayers);
    } else {
      place.set_missing_layers(kLayers);
    }
  }
  return answer;
}

void Miss(v1::BlockPlace* place) {
  place->Clear();
  place->set_missing_layers(kLayers);
}

Explanation ExplainOne(const v1::ExplainResponse& answer) {
  return Explain(Keys(), {{"a:7070", answer}}, [](int32_t token) { return absl::StrCat("<", token, ">"); });
}

TEST(ExplainViewTest, AStoredPrefixHitsAsFarAsTheRequestMayUseIt) {
  const Explanation explanation = ExplainOne(Answer());
  ASSERT_EQ(explanation.blocks.size(), 5u);
  EXPECT_EQ(explanation.hit_tokens, 256);
  EXPECT_EQ(explanation.prompt_tokens, 323);
  EXPECT_EQ(explanation.blocks[0].result, Result::kHit);
  EXPECT_EQ(explanation.blocks[0].where, "memory");
  EXPECT_THAT(explanation.blocks[0].why, IsEmpty());
  EXPECT_EQ(explanation.blocks[3].first_token, 192);
  EXPECT_EQ(explanation.blocks[3].last_token, 255);
  EXPECT_EQ(explanation.blocks[4].result, Result::kUnused);
}

TEST(ExplainViewTest, BehindTheFirstMissNothingIsReached) {
  v1::ExplainResponse answer = Answer();
  Miss(answer.mutable_blocks(1));
  const Explanation explanation = ExplainOne(answer);
  EXPECT_EQ(explanation.hit_tokens, 64);
  EXPECT_EQ(explanation.blocks[1].result, Result::kMiss);
  EXPECT_THAT(explanation.blocks[1].why, HasSubstr("not stored for tenant acme"));
  EXPECT_EQ(explanation.blocks[2].result, Result::kUnreached);
  EXPECT_THAT(explanation.blocks[2].why, HasSubstr("a block before it is missing"));
}

TEST(ExplainViewTest, WhatATierHasThatIsSlowerThanComputingIsNoHit) {
  v1::ExplainResponse answer = Answer();
  for (const int i : {1, 2}) {
    answer.mutable_blocks(i)->set_memory_layers(kLayers - 1);
    answer.mutable_blocks(i)->set_disk_layers(1);
  }
  v1::ListBlockKeysResponse keys = Keys();
  keys.set_compute_bytes_per_second(4 << 20);
  answer.mutable_disk_reads()->set_latency_seconds(0.5);
  answer.mutable_disk_reads()->set_bytes_per_second(1 << 20);
  answer.mutable_disk_reads()->set_retry_seconds(7);
  const auto explain = [&] { return Explain(keys, {{"a:7070", answer}}, [](int32_t) { return std::string(); }); };
  EXPECT_EQ(explain().hit_tokens, 256) << "it is fast enough";
  answer.set_disk_slow(true);
  const Explanation explanation = explain();
  EXPECT_EQ(explanation.hit_tokens, 64);
  EXPECT_EQ(explanation.blocks[1].result, Result::kSlow);
  EXPECT_EQ(explanation.blocks[1].why,
            "the disk takes 1.5 s for a MiB, computing it 0.25 s: left out, tried again in 7 s");
  EXPECT_EQ(explanation.blocks[2].result, Result::kUnreached);
}

TEST(ExplainViewTest, AWorkerThatLeavesStoredPrefixesAloneSaysSo) {
  v1::ListBlockKeysResponse keys = Keys();
  keys.set_compute_seconds(1.5);
  keys.set_load_seconds(0.25);
  keys.set_loads(true);
  v1::ExplainResponse answer = Answer();
  const auto explain = [&] { return Explain(keys, {{"a:7070", answer}}, [](int32_t) { return std::string(); }); };
  EXPECT_EQ(explain().hit_tokens, 256);
  EXPECT_THAT(explain().loading,
              AllOf(HasSubstr("takes the worker 0.25 s lately, computing them 1.5 s"), HasSubstr("they are loaded")));
  keys.set_load_seconds(20);
  keys.set_loads(false);
  EXPECT_EQ(explain().hit_tokens, 0);
  EXPECT_THAT(explain().loading, HasSubstr("they are COMPUTED"));
  Miss(answer.mutable_blocks(0));
  EXPECT_THAT(explain().loading, IsEmpty()) << "there is nothing to load";
}

TEST(ExplainViewTest, AMissSaysWhatBecameOfTheBlock) {
  const std::vector<std::pair<v1::BlockPlace::Departure, const char*>> cases = {
      {v1::BlockPlace::DEPARTURE_ROOM, "the oldest on a full disk"},
      {v1::BlockPlace::DEPARTURE_QUOTA, "at his quota"},
      {v1::BlockPlace::DEPARTURE_CORRUPT, "damaged"},
      {v1::BlockPlace::DEPARTURE_DISK, "could not be written"}};
  for (const auto& [departure, text] : cases) {
    v1::ExplainResponse answer = Answer();
    Miss(answer.mutable_blocks(0));
    answer.mutable_blocks(0)->set_departure(departure);
    answer.mutable_blocks(0)->set_departed_seconds(300);
    EXPECT_THAT(ExplainOne(answer).blocks[0].why, AllOf(HasSubstr(text), HasSubstr("5 min")));
  }
  v1::ExplainResponse partly = Answer();
  partly.mutable_blocks(0)->set_memory_layers(1);
  partly.mutable_blocks(0)->set_disk_layers(2);
  partly.mutable_blocks(0)->set_missing_layers(1);
  const Explanation explanation = ExplainOne(partly);
  EXPECT_EQ(explanation.blocks[0].where, "memory (1 of 4 layers), disk (2 of 4 layers)");
  EXPECT_EQ(explanation.blocks[0].why, "1 of its 4 layers are missing");
}

TEST(ExplainViewTest, ASessionThatBeginsAlikeShowsWhereThePromptParts) {
  v1::ExplainResponse answer = Answer();
  Miss(answer.mutable_blocks(1));
  v1::SessionMatch& session = *answer.mutable_closest();
  session.set_session_id("chat");
  session.set_preset("full");
  session.set_tokens(500);
  session.set_common_tokens(100);
  session.set_common_blocks(1);
  session.set_next_token_id(7);
  const Explanation parts = ExplainOne(answer);
  EXPECT_THAT(parts.blocks[1].why,
              AllOf(HasSubstr("chat"), HasSubstr("token 100"), HasSubstr("<7>"), HasSubstr("<100>")));
  EXPECT_THAT(parts.closest, AllOf(HasSubstr("chat"), HasSubstr("first 100 tokens")));

  // The same tokens under other keys: the session computed them after a compression.
  session.set_preset("snapkv");
  session.set_common_tokens(128);
  EXPECT_THAT(ExplainOne(answer).blocks[1].why, AllOf(HasSubstr("lineage"), HasSubstr("snapkv")));
}

TEST(ExplainViewTest, OfSeveralPodsTheOneThatHasTheBlockCounts) {
  v1::ExplainResponse first = Answer(), second = Answer();
  first.set_pod_name("cache-0");
  second.set_pod_name("cache-1");
  for (int i = 0; i < kBlocks; ++i) Miss((i % 2 == 0 ? first : second).mutable_blocks(i));
  second.mutable_blocks(0)->set_pinned(true);
  const Explanation explanation =
      Explain(Keys(), {{"a:7070", first}, {"b:7070", second}}, [](int32_t) { return std::string(); });
  EXPECT_EQ(explanation.hit_tokens, 256);
  EXPECT_EQ(explanation.blocks[0].where, "memory, pinned of cache-1");
  EXPECT_EQ(explanation.blocks[1].where, "memory of cache-0");
}

TEST(ExplainViewTest, AShortPromptHasNoBlocks) {
  v1::ListBlockKeysResponse keys;
  keys.set_block_tokens(64);
  keys.add_token_ids(1);
  const Explanation explanation = Explain(keys, {}, [](int32_t) { return std::string(); });
  EXPECT_THAT(explanation.blocks, IsEmpty());
  EXPECT_EQ(explanation.hit_tokens, 0);
}

}  // namespace
}  // namespace tidepool::cli
