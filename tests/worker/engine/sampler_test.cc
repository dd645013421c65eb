#include "worker/engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "worker/engine/portable_exp.h"

namespace tidepool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t SampleOnce(Sampler& sampler, const std::vector<float>& logits) {
  SamplerScratch scratch;
  const absl::StatusOr<int32_t> token = sampler.Sample(logits, scratch);
  EXPECT_TRUE(token.ok()) << token.status();
  return token.value_or(-1);
}

int32_t Greedy(const std::vector<float>& logits, SamplingParams params = {}) {
  Sampler sampler(params, static_cast<int>(logits.size()));
  return SampleOnce(sampler, logits);
}

std::vector<int32_t> Draws(Sampler& sampler, const std::vector<float>& logits, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(SampleOnce(sampler, logits));
  return tokens;
}

std::vector<float> RandomLogits(std::mt19937& random, int vocabulary, float spread) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(vocabulary);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// 64 logits, all different, from 0 to 7.875.
std::vector<float> Staircase() {
  std::vector<float> logits(64);
  for (int i = 0; i < 64; ++i) logits[i] = static_cast<float>(i * 37 % 64) / 8;
  return logits;
}

// The rules of sampling_params.h, written down as slowly as possible: probability of each token that may be drawn.
std::map<int32_t, double> Reference(const std::vector<float>& logits, const SamplingParams& params,
                                    const std::vector<int32_t>& prompt, const std::vector<int32_t>& generated) {
  std::vector<double> adjusted(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) adjusted[token] += bias;
  std::set<int32_t> seen(prompt.begin(), prompt.end());
  seen.insert(generated.begin(), generated.end());
  for (const int32_t token : seen) {
    const double r = params.repetition_penalty;
    adjusted[token] = adjusted[token] < 0 ? adjusted[token] * r : adjusted[token] / r;
  }
  std::map<int32_t, int> counts;
  for (const int32_t token : generated) ++counts[token];
  for (const auto& [token, count] : counts) {
    adjusted[token] -= params.presence_penalty + params.frequency_penalty * count;
  }
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return adjusted[a] > adjusted[b]; });
  if (params.top_k > 0 && params.top_k < static_cast<int>(order.size())) order.resize(params.top_k);
  double sum = 0;
  for (const int32_t token : order) sum += std::exp((adjusted[token] - adjusted[order[0]]) / params.temperature);
  std::map<int32_t, double> kept;
  double reached = 0, kept_sum = 0, best = 1 / sum;
  for (const int32_t token : order) {
    const double p = std::exp((adjusted[token] - adjusted[order[0]]) / params.temperature) / sum;
    if (reached >= params.top_p && params.top_p < 1) break;
    reached += p;
    if (p < params.min_p * best) break;
    kept[token] = p;
    kept_sum += p;
  }
  for (auto& [token, p] : kept) p /= kept_sum;
  return kept;
}

TEST(PortableExpTest, AgreesWithTheLibraryForAllNonPositiveArguments) {
  for (double x = 0; x > -707; x -= 0.0137) EXPECT_NEAR(PortableExp(x) / std::exp(x), 1, 4e-16) << x;
  EXPECT_EQ(PortableExp(0), 1);
  EXPECT_EQ(PortableExp(-708), 0);
  EXPECT_EQ(PortableExp(-std::numeric_limits<double>::infinity()), 0);
  EXPECT_EQ(PortableExp(std::numeric_limits<double>::quiet_NaN()), 0);
}

TEST(RandomBitsTest, SeedFillsTheStateBySplitMix64) {
  // SplitMix64 from 0 gives 0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f, 0xf88bb8a8724c81ec.
  RandomBits random(0);
  EXPECT_EQ(random.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(random.Next(), 0xbf6e1f784956452au);
  EXPECT_EQ(random.Next(), 0x1a5f849d4933e6e0u);
}

TEST(RandomBitsTest, GivesTheNumbersOfXoshiro256StarStar) {
  RandomBits random(42);
  EXPECT_EQ(random.Next(), 0x15780b2e0c2ec716u);
  EXPECT_EQ(random.Next(), 0x6104d9866d113a7eu);
  EXPECT_EQ(random.Next(), 0xae17533239e499a1u);
}

TEST(SamplerTest, GreedyTakesTheBestAndTiesGoToTheLowerId) {
  EXPECT_EQ(Greedy({1, 3, 2}), 1);
  EXPECT_EQ(Greedy({1, 3, 3, 3}), 1);
  EXPECT_EQ(Greedy({-5}), 0);
  EXPECT_EQ(Greedy(std::vector<float>(5000, -2)), 0);
}

TEST(SamplerTest, GreedyEqualsTheFirstMaximumForAllSizes) {
  std::mt19937 random(1);
  for (int vocabulary = 1; vocabulary < 2000; vocabulary += 1 + vocabulary / 17) {
    std::vector<float> logits = RandomLogits(random, vocabulary, 2);
    for (float& logit : logits) logit = std::round(logit);  // many ties
    EXPECT_EQ(Greedy(logits), std::max_element(logits.begin(), logits.end()) - logits.begin()) << vocabulary;
  }
}

TEST(SamplerTest, NanAndMinusInfinityAreNeverChosen) {
  EXPECT_EQ(Greedy({kNan, -kInf, -3, kNan}), 2);
  for (const float top_p : {1.0f, 0.9f}) {
    SamplingParams params;
    params.temperature = 1;
    params.top_p = top_p;
    Sampler sampler(params, 5);
    for (const int32_t token : Draws(sampler, {kNan, -kInf, -3, kNan, -3.5}, 50)) EXPECT_TRUE(token == 2 || token == 4);
  }
}

TEST(SamplerTest, PlusInfinityIsTheLargestFloat) {
  EXPECT_EQ(Greedy({3e38f, kInf, kInf}), 1);
  SamplingParams params;
  params.temperature = 1;
  Sampler sampler(params, 4);
  for (const int32_t token : Draws(sampler, {5, kInf, 3e38f, kInf}, 50)) EXPECT_TRUE(token == 1 || token == 3);
}

TEST(SamplerTest, NothingButNanIsAnErrorAndNotAToken) {
  SamplerScratch scratch;
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    Sampler sampler(params, 3);
    EXPECT_EQ(sampler.Sample(std::vector<float>{kNan, -kInf, kNan}, scratch).status().code(),
              absl::StatusCode::kInternal);
  }
}

TEST(SamplerTest, LogitBiasIsAddedBeforeTheChoice) {
  SamplingParams params;
  params.logit_bias = {{2, 1.5f}, {0, -100}};
  EXPECT_EQ(Greedy({9, 3, 2}, params), 2);
}

TEST(SamplerTest, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOfSeenTokens) {
  SamplingParams params;
  params.repetition_penalty = 2;
  Sampler positive(params, 3);
  positive.Observe({0, 0});
  EXPECT_EQ(SampleOnce(positive, {5, 3, 1}), 1);  // 2.5 against 3
  Sampler negative(params, 2);
  negative.Observe({0});
  EXPECT_EQ(SampleOnce(negative, {-2, -3}), 1);  // -4 against -3
}

TEST(SamplerTest, PresenceAndFrequencyCountGeneratedTokensOnly) {
  SamplingParams params;
  params.presence_penalty = 1;
  Sampler presence(params, 2);
  presence.Observe({0, 0, 0});
  EXPECT_THAT(Draws(presence, {2, 1.5}, 4), ElementsAre(0, 1, 0, 0));  // each pays 1 once

  params.presence_penalty = 0;
  params.frequency_penalty = 1;
  Sampler frequency(params, 2);
  frequency.Observe({0, 0, 0});
  EXPECT_THAT(Draws(frequency, {2, 0.5}, 5), ElementsAre(0, 0, 1, 0, 1));
}

TEST(SamplerTest, ForcedTokensCountLikeSampledOnes) {
  SamplingParams params;
  params.frequency_penalty = 1;
  Sampler sampler(params, 2);
  sampler.Accept(0);
  EXPECT_EQ(SampleOnce(sampler, {2, 1.5}), 1);
}

TEST(SamplerTest, EqualSeedsDrawEqualTokensAndOthersDoNot) {
  SamplingParams params;
  params.temperature = 1.5;
  params.seed = 11;
  Sampler a(params, 64), b(params, 64);
  params.seed = 12;
  Sampler c(params, 64);
  const std::vector<int32_t> drawn = Draws(a, Staircase(), 40);
  EXPECT_EQ(Draws(b, Staircase(), 40), drawn);
  EXPECT_NE(Draws(c, Staircase(), 40), drawn);
}

// Computed by a program of its own (Python, its own generator and exponential).
TEST(SamplerTest, SeedSevenDrawsTheseTokensOnEveryMachine) {
  SamplingParams params;
  params.temperature = 0.8125;
  params.seed = 7;
  Sampler all(params, 64);
  EXPECT_THAT(Draws(all, Staircase(), 16), ElementsAre(43, 19, 55, 62, 62, 57, 5, 12, 24, 12, 36, 43, 57, 57, 31, 36));
  params.top_k = 20;
  params.top_p = 0.875;
  Sampler cut(params, 64);
  EXPECT_THAT(Draws(cut, Staircase(), 16), ElementsAre(50, 38, 24, 36, 36, 43, 19, 19, 57, 19, 12, 5, 17, 43, 12, 31));
}

TEST(SamplerTest, TheBestLogitsSufficeWhereItSays) {
  std::mt19937 random(21);
  SamplingParams greedy, top_k, top_k_and_p;
  top_k.temperature = 0.9f;
  top_k.top_k = 12;
  top_k_and_p = top_k;
  top_k_and_p.top_p = 0.7f;
  top_k_and_p.min_p = 0.05f;
  for (SamplingParams params : {greedy, top_k, top_k_and_p}) {
    params.seed = random();
    Sampler whole(params, 300), few(params, 300);
    const int needed = few.best_needed();
    EXPECT_EQ(needed, params.temperature == 0 ? 1 : 12);
    for (int i = 0; i < 50; ++i) {
      const std::vector<float> logits = RandomLogits(random, 300, 3);
      std::vector<TokenLogit> best;
      TopLogits(logits, needed + i % 3, best);
      SamplerScratch scratch;
      ASSERT_EQ(*few.Sample(absl::MakeConstSpan(best), scratch), SampleOnce(whole, logits));
    }
    SamplerScratch scratch;
    EXPECT_EQ(few.Sample(absl::Span<const TokenLogit>(), scratch).status().code(), absl::StatusCode::kInternal);
  }
  SamplingParams top_p, biased = greedy, penalised = top_k;
  top_p.temperature = 1;
  top_p.top_p = 0.5f;
  biased.logit_bias = {{3, 1.0f}};
  penalised.repetition_penalty = 1.1f;
  for (const SamplingParams& params : {top_p, biased, penalised}) EXPECT_EQ(Sampler(params, 300).best_needed(), 0);
}

TEST(SamplerTest, DrawsFollowTheReferenceDistribution) {
  constexpr int kDraws = 3000;
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    const int vocabulary = 5 + static_cast<int>(random() % 400);
    const std::vector<float> logits = RandomLogits(random, vocabulary, 3);
    SamplingParams params;
    params.seed = random();
    params.temperature = 0.25f + static_cast<float>(random() % 8) / 4;
    if (random() % 2) params.top_k = 1 + static_cast<int>(random() % (vocabulary + 5));
    if (random() % 2) params.top_p = static_cast<float>(1 + random() % 100) / 100;
    if (random() % 2) params.min_p = static_cast<float>(random() % 50) / 100;
    if (random() % 2) params.repetition_penalty = 1.5;
    if (random() % 2) params.presence_penalty = 0.75;
    if (random() % 2) params.frequency_penalty = -0.5;
    if (random() % 2) params.logit_bias = {{1, 2.5f}, {3, -4.0f}};
    std::vector<int32_t> prompt, generated;
    for (int i = 0; i < 10; ++i) prompt.push_back(static_cast<int32_t>(random() % vocabulary));
    for (int i = 0; i < 6; ++i) generated.push_back(static_cast<int32_t>(random() % vocabulary));
    SCOPED_TRACE(testing::Message() << "round " << round << ", vocabulary " << vocabulary);

    RandomBits seeds(static_cast<uint64_t>(round));
    std::map<int32_t, int> counts;
    SamplerScratch scratch;
    for (int i = 0; i < kDraws; ++i) {
      params.seed = seeds.Next();  // the same history each time, another draw
      Sampler sampler(params, vocabulary);
      sampler.Observe(prompt);
      for (const int32_t token : generated) sampler.Accept(token);
      ++counts[*sampler.Sample(logits, scratch)];
    }
    const std::map<int32_t, double> expected = Reference(logits, params, prompt, generated);
    for (const auto& [token, count] : counts) EXPECT_TRUE(expected.contains(token)) << token << " drawn " << count;
    for (const auto& [token, p] : expected) {
      const double deviation = std::sqrt(kDraws * p * (1 - p));
      EXPECT_NEAR(counts[token], kDraws * p, 5 * deviation + 1) << "token " << token;
    }
  }
}

TEST(SamplerTest, TopKOneAndATinyTopPAreGreedy) {
  std::mt19937 random(4);
  const std::vector<float> logits = RandomLogits(random, 3000, 1);
  SamplingParams one, tiny;
  one.temperature = tiny.temperature = 10;
  one.top_k = 1;
  tiny.top_p = 1e-6f;
  EXPECT_EQ(Greedy(logits, one), Greedy(logits));
  EXPECT_EQ(Greedy(logits, tiny), Greedy(logits));
}

TEST(SamplerTest, TopPOverAFlatDistributionKeepsTheLowerIds) {
  SamplingParams params;
  params.temperature = 1;
  params.top_p = 0.5;
  Sampler sampler(params, 1000);
  for (const int32_t token : Draws(sampler, std::vector<float>(1000, 1.0f), 300)) EXPECT_LT(token, 500);
}

TEST(TopLogitsTest, EqualsASortOfEverythingForAllCounts) {
  std::mt19937 random(5);
  for (const int vocabulary : {1, 7, 300, 5000}) {
    std::vector<float> logits = RandomLogits(random, vocabulary, 3);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = i % 11 == 3 ? kNan : std::round(logits[i] * 4) / 4;
    std::vector<TokenLogit> sorted;
    for (int i = 0; i < vocabulary; ++i) {
      if (!std::isnan(logits[i])) sorted.push_back({logits[i], i});
    }
    std::stable_sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.logit > b.logit; });
    for (const int count : {0, 1, 2, 20, 299, 2500, 6000}) {
      std::vector<TokenLogit> best;
      TopLogits(logits, count, best);
      ASSERT_EQ(best.size(), std::min<size_t>(count, sorted.size()));
      for (size_t i = 0; i < best.size(); ++i) ASSERT_EQ(best[i].token, sorted[i].token) << i << " of " << count;
    }
  }
}

struct BadParams {
  const char* field;
  void (*spoil)(SamplingParams&);
};

TEST(ValidateSamplingTest, NamesTheFieldThatIsOutOfRange) {
  const BadParams cases[] = {
      {"temperature is -0.1", [](SamplingParams& p) { p.temperature = -0.1f; }},
      {"temperature is 10.5", [](SamplingParams& p) { p.temperature = 10.5f; }},
      {"temperature is nan", [](SamplingParams& p) { p.temperature = kNan; }},
      {"top_k is -1", [](SamplingParams& p) { p.top_k = -1; }},
      {"top_p is 0", [](SamplingParams& p) { p.top_p = 0; }},
      {"top_p is 1.5", [](SamplingParams& p) { p.top_p = 1.5f; }},
      {"top_p is nan", [](SamplingParams& p) { p.top_p = kNan; }},
      {"min_p is 1", [](SamplingParams& p) { p.min_p = 1; }},
      {"min_p is nan", [](SamplingParams& p) { p.min_p = kNan; }},
      {"repetition_penalty is 0", [](SamplingParams& p) { p.repetition_penalty = 0; }},
      {"repetition_penalty is inf", [](SamplingParams& p) { p.repetition_penalty = kInf; }},
      {"repetition_penalty is nan", [](SamplingParams& p) { p.repetition_penalty = kNan; }},
      {"presence_penalty is -2.5", [](SamplingParams& p) { p.presence_penalty = -2.5f; }},
      {"presence_penalty is nan", [](SamplingParams& p) { p.presence_penalty = kNan; }},
      {"frequency_penalty is 2.5", [](SamplingParams& p) { p.frequency_penalty = 2.5f; }},
      {"frequency_penalty is nan", [](SamplingParams& p) { p.frequency_penalty = kNan; }},
      {"logit_bias[1].token is 100",
       [](SamplingParams& p) {
         p.logit_bias = {{99, 0.f}, {100, 0.f}};
       }},
      {"logit_bias[0].token is -1",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 0.f}};
       }},
      {"logit_bias[0].bias is 101",
       [](SamplingParams& p) {
         p.logit_bias = {{1, 101.f}};
       }},
      {"logit_bias[0].bias is nan",
       [](SamplingParams& p) {
         p.logit_bias = {{1, kNan}};
       }},
      {"logit_bias holds token 4 twice",
       [](SamplingParams& p) {
         p.logit_bias = {{4, 1.f}, {3, 1.f}, {4, 2.f}};
       }},
      {"logit_bias is 1025 entries", [](SamplingParams& p) { p.logit_bias.resize(1025); }},
  };
  for (const BadParams& bad : cases) {
    SamplingParams params;
    bad.spoil(params);
    const absl::Status status = ValidateSampling(params, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
    EXPECT_THAT(std::string(status.message()), HasSubstr("allowed:"));
  }
}

TEST(ValidateSamplingTest, AcceptsTheDefaultsAndTheEndsOfEveryRange) {
  EXPECT_TRUE(ValidateSampling({}, 100).ok());
  SamplingParams params;
  params.temperature = 10;
  params.top_k = 1 << 30;
  params.top_p = 1;
  params.min_p = 0.999f;
  params.repetition_penalty = 10;
  params.presence_penalty = -2;
  params.frequency_penalty = 2;
  params.logit_bias = {{0, -100.f}, {99, 100.f}};
  EXPECT_EQ(ValidateSampling(params, 100), absl::OkStatus());
}

}  // namespace
}  // namespace tidepool
