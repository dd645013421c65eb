// The claim in miniature: a model that answers every question with its full cache, a device budget of 20 %, questions
// unknown when the context is compressed. What a policy drops is lost without recall; with recall every answer is
// there, from RocksDB, and also after the cache and the worker were killed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/e2e/cluster.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

struct Case {
  std::vector<int32_t> context;
  std::vector<std::pair<int32_t, int32_t>> questions;  // key, value
};

const std::vector<Case>& Cases() {
  static const std::vector<Case> cases = [] {
    std::vector<Case> read;
    for (const nlohmann::json& c :
         nlohmann::json::parse(test::ReadFile(test::ReferencePath("lookup_model/cases.json")))) {
      Case& one = read.emplace_back();
      one.context = c["context_ids"].get<std::vector<int32_t>>();
      for (const nlohmann::json& q : c["questions"])
        one.questions.emplace_back(q[0].get<int32_t>(), q[1].get<int32_t>());
    }
    return read;
  }();
  return cases;
}

int Questions(const Case& c) { return static_cast<int>(c.questions.size()); }

test::Cluster::Options Squeezed() {
  test::Cluster::Options options;
  options.model = test::ModelPath("lookup.gguf");
  options.cache_memory = "512KiB";
  return options;
}

v1::GenerateRequest Turn(const std::string& session, const std::string& preset, v1::RecallMode mode,
                         const std::vector<int32_t>& tokens, int max_tokens) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->mutable_ids()->Assign(tokens.begin(), tokens.end());
  request.set_session_id(session);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  v1::CompressionParams& compression = *request.mutable_compression();
  compression.set_preset(preset);
  if (preset == "full") return request;
  compression.set_budget_fraction(0.2);
  compression.set_dense_layers_override(preset ==
                                        "d2o");  // 20 % for D2O too, which leaves three of the four layers dense
  compression.mutable_recall()->set_mode(mode);
  return request;
}

// Asks question after question, each the next turn of the session; before question i, `between(i)`.
int RightAnswers(test::Cluster& cluster, const Case& c, const std::string& session, const std::string& preset,
                 v1::RecallMode mode, v1::Usage* usage, const std::function<void(int)>& between = nullptr) {
  const test::Reply context = cluster.Generate(Turn(session, preset, mode, c.context, 0));
  EXPECT_TRUE(context.status.ok()) << context.status.error_message();
  int right = 0;
  for (int i = 0; i < static_cast<int>(c.questions.size()); ++i) {
    if (between) between(i);
    const test::Reply answer = cluster.Generate(Turn(session, preset, mode, {c.questions[i].first}, 1));
    EXPECT_TRUE(answer.status.ok()) << "question " << i << ": " << answer.status.error_message();
    right += answer.ids.size() == 1 && answer.ids[0] == c.questions[i].second;
    if (usage != nullptr) *usage = answer.finished.usage();
  }
  return right;
}

TEST(LookupTest, WithTheFullCacheEveryAnswerIsRight) {
  test::Cluster cluster(Squeezed());
  for (size_t i = 0; i < Cases().size(); ++i) {
    EXPECT_EQ(RightAnswers(cluster, Cases()[i], "full-" + std::to_string(i), "full", v1::RECALL_MODE_OFF, nullptr),
              Questions(Cases()[i]));
  }
}

TEST(LookupTest, WithoutRecallMostAnswersAreLost) {
  test::Cluster cluster(Squeezed());
  for (const std::string preset : {"snapkv", "streaming", "d2o"}) {
    for (size_t i = 0; i < Cases().size(); ++i) {
      const int right =
          RightAnswers(cluster, Cases()[i], preset + std::to_string(i), preset, v1::RECALL_MODE_OFF, nullptr);
      EXPECT_LT(right, Questions(Cases()[i]) / 2) << preset << ", " << Cases()[i].context.size() << " tokens";
      std::printf("%s, recall off, %zu tokens: %d of %d\n", preset.c_str(), Cases()[i].context.size(), right,
                  Questions(Cases()[i]));
    }
  }
}

class LookupRecallTest : public testing::TestWithParam<std::string> {};

TEST_P(LookupRecallTest, EveryAnswerIsRightAlsoAfterCacheAndWorkerWereKilled) {
  test::Cluster cluster(Squeezed());
  for (size_t i = 0; i < Cases().size(); ++i) {
    const Case& c = Cases()[i];
    v1::Usage usage;
    const int right = RightAnswers(cluster, c, GetParam() + std::to_string(i), GetParam(), v1::RECALL_MODE_SYNC, &usage,
                                   [&](int question) {
                                     if (question == 10 || question == 30) {
                                       cluster.KillCache();
                                       cluster.StartCache();
                                     }
                                     if (question == 20 || question == 30) {
                                       cluster.KillWorker();
                                       cluster.StartWorker();
                                     }
                                   });
    EXPECT_EQ(right, Questions(c)) << c.context.size() << " tokens";
    EXPECT_FALSE(usage.degraded());
    EXPECT_EQ(usage.lost_rows(), 0);
    EXPECT_GT(usage.recalled_rows(), 0);
    // The device holds a fifth of the rows, and one page of 16 slots more in each of the 8 (layer, kv head) at most.
    EXPECT_LE(usage.resident_kv_bytes(), usage.full_kv_bytes() / 5 + 8 * 17 * 2 * 128 * 2);
    std::printf("%s, recall sync, %zu tokens: %d of %d, %.1f %% of the keys and values on the device\n",
                GetParam().c_str(), c.context.size(), right, Questions(c),
                100.0 * usage.resident_kv_bytes() / usage.full_kv_bytes());
  }
  const v1::GetStatsResponse stats = cluster.CacheStats();
  EXPECT_LE(stats.memory().bytes(), 512u << 10);
  EXPECT_GT(stats.disk().hits(), 0u) << "rows came from RocksDB";
  EXPECT_GT(stats.recalled_rows(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Presets, LookupRecallTest, testing::Values("snapkv", "streaming", "d2o"));

}  // namespace
}  // namespace tidepool
