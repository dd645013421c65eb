// Stored prefixes lie where reading them takes longer than computing them: behind a slow network, or in a remote tier
// behind one. They are computed, the answers are the same, and they are read again when that is fast.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/generation_client.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/e2e/fleet.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"

namespace tidepool {
namespace {

using test::Eventually;
using test::FaultProxy;
using test::Fleet;
using testing::HasSubstr;
using Reads = v1::TierReadStats;

constexpr int64_t kSlow = 1'000'000;  // bytes in a second

// A worker, and prompts that all differ from their first block on.
class Prompts {
 public:
  Prompts(const std::string& worker, int tokens) : client_(worker), tokens_(tokens) {}
  // Whether the worker would load one that is stored.
  bool Loads(int prompt) {
    v1::ListBlockKeysRequest request;
    *request.mutable_token_ids() = IdsOf(prompt);
    const auto keys = client_.ListBlockKeys(request);
    EXPECT_TRUE(keys.ok()) << keys.status();
    return keys.ok() && keys->loads();
  }
  // Whatever the cache does, the answer is the one that it was before.
  v1::Usage Answer(int prompt) {
    v1::GenerateRequest request;
    *request.mutable_token_ids() = IdsOf(prompt);
    request.mutable_stop()->set_max_tokens(4);
    request.mutable_stop()->set_ignore_eos(true);
    std::vector<int32_t> ids;
    const auto finished = client_.Generate(
        request,
        [&](const v1::GenerateResponse& response) {
          ids.insert(ids.end(), response.tokens().ids().begin(), response.tokens().ids().end());
        },
        absl::Now() + absl::FromChrono(test::kProcessTimeout));
    EXPECT_TRUE(finished.ok()) << prompt << ": " << finished.status();
    const auto [known, first] = answers_.try_emplace(prompt, ids);
    EXPECT_EQ(ids, known->second) << prompt;
    return finished.ok() ? finished->usage() : v1::Usage();
  }

 private:
  v1::TokenIds IdsOf(int prompt) const {
    v1::TokenIds ids;
    for (int i = 0; i < tokens_; ++i) ids.add_ids(300 + (prompt * 7 + i * i) % 1500);
    return ids;
  }
  GenerationClient client_;
  const int tokens_;
  std::map<int, std::vector<int32_t>> answers_;
};

TEST(SlowNetworkTest, PrefixesAreComputedUntilItIsFastAgain) {
  Fleet fleet({.model = test::ModelPath("lookup.gguf"), .pods = 1, .proxies = true});
  Prompts prompts(fleet.worker_address(0), 500);
  EXPECT_EQ(prompts.Answer(0).cached_prompt_tokens(), 0);
  ASSERT_TRUE(Eventually([&] { return prompts.Answer(0).cached_prompt_tokens() == 448; })) << "it is stored by then";
  EXPECT_EQ(prompts.Answer(0).slow_prompt_tokens(), 0);

  fleet.proxy(0, 0).Set({.bytes_per_second = kSlow});
  ASSERT_TRUE(Eventually([&] {
    const v1::Usage usage = prompts.Answer(0);
    return usage.cached_prompt_tokens() == 0 && usage.slow_prompt_tokens() == 448;
  })) << "not even a part is loaded";

  fleet.proxy(0, 0).Clear();
  ASSERT_TRUE(Eventually([&] { return prompts.Answer(0).cached_prompt_tokens() == 448; }));
  EXPECT_EQ(prompts.Answer(0).slow_prompt_tokens(), 0);
}

// Of a model that computes far more slowly than a network on this machine is, unless it is throttled. Its blocks leave
// memory and disk, so that only the remote tier has them. Computed again they are in memory, so each prompt is asked
// once.
class SlowRemoteTierTest : public testing::Test {
 protected:
  static constexpr int kPrompts = 30, kRemote = 22;  // of 4.7 MB

  SlowRemoteTierTest() {
    for (int prompt = 0; prompt < kPrompts; ++prompt) {
      EXPECT_EQ(prompts_.Answer(prompt).cached_prompt_tokens(), 0);
      EXPECT_TRUE(Eventually([&] { return fleet_.PodStats(0).remote().backlog_bytes() < (4u << 20); }));
    }
  }
  Reads ReadsOf() { return fleet_.PodStats(0).remote_reads(); }
  // Asks until a prefix is loaded; whoever is to be a probe comes when service and worker let one through.
  bool AskUntilOneIsLoaded(int last) {
    while (next_ < last) {
      EXPECT_TRUE(Eventually([&] { return ReadsOf().retry_seconds() == 0 && prompts_.Loads(next_); }));
      if (prompts_.Answer(next_++).cached_prompt_tokens() == 192) return true;
    }
    return false;
  }

  test::RedisServer redis_;
  FaultProxy network_{redis_.endpoint().ToString()};
  Fleet fleet_{
      {.model = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"),
       .pods = 1,
       .pod_flags = {"--memory-bytes=2MiB", "--disk-bytes=16MiB", "--remote-tier=redis://" + network_.address(),
                     "--remote-tier-timeout=30s", "--slow-tier-retry=1s"}}};
  Prompts prompts_{fleet_.worker_address(0), 200};
  int next_ = 0;
};

TEST_F(SlowRemoteTierTest, PrefixesAreComputedUntilItIsFastAgain) {
  EXPECT_TRUE(AskUntilOneIsLoaded(5));
  EXPECT_EQ(ReadsOf().state(), Reads::STATE_READ);

  network_.Set({.bytes_per_second = kSlow});
  while (next_ < kRemote / 2 && ReadsOf().lookups_left_out() == 0) prompts_.Answer(next_++);
  const test::ProgramResult stats =
      test::RunProgram({test::BinaryPath("tidepool"), "admin", "stats", "--cache=" + fleet_.pod_address(0)});
  EXPECT_THAT(stats.out, HasSubstr("; LEFT OUT for prefixes, which are computed faster, for "));
  EXPECT_GE(ReadsOf().times_left_out(), 1u);
  EXPECT_GE(ReadsOf().lookups_left_out(), 1u);
  EXPECT_EQ(fleet_.PodStats(0).remote().failed(), 0u) << "slow, and not broken";

  network_.Clear();
  EXPECT_TRUE(AskUntilOneIsLoaded(kRemote)) << "probes find that it is fast again";
  EXPECT_EQ(ReadsOf().state(), Reads::STATE_READ);
}

}  // namespace
}  // namespace tidepool
