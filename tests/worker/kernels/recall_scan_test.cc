#include "worker/kernels/cpu/recall_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/kernels/random_queries.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const RecallScanKernels& KernelsOf(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512: return cpu_avx512::kRecallScanKernels;
    case Isa::kAvx2: return cpu_avx2::kRecallScanKernels;
#endif
    default: return cpu_baseline::kRecallScanKernels;
  }
}

class RecallScanTest : public testing::TestWithParam<Isa> {};

TEST_P(RecallScanTest, ScansFourBitCodes) {
  const RecallScanKernels& kernels = KernelsOf(GetParam());
  constexpr int kHeadDim = 48, kTiles = 3, kQueries = 5;
  std::mt19937 random(2);
  std::vector<int> code(kHeadDim * kTiles * 16);
  for (int& c : code) c = static_cast<int>(random() % 16);
  auto at = [&](int tile, int c, int token) { return code[(tile * kHeadDim + c) * 16 + token]; };
  std::vector<uint8_t> packed(kTiles * kHeadDim * 8);
  for (int tile = 0; tile < kTiles; ++tile) {
    for (int c = 0; c < kHeadDim; ++c) {
      for (int b = 0; b < 8; ++b) {
        packed[(tile * kHeadDim + c) * 8 + b] = static_cast<uint8_t>(at(tile, c, b) | at(tile, c, b + 8) << 4);
      }
    }
  }
  const std::vector<float> q = RandomQueries(kQueries, kHeadDim, 4);
  std::vector<float> bias = {0.5f, -1, 0, 2, 3}, scores(kQueries * kTiles * 16);
  std::vector<const float*> q_rows;
  std::vector<float*> score_rows;
  for (int j = 0; j < kQueries; ++j) {
    q_rows.push_back(q.data() + j * kHeadDim);
    score_rows.push_back(scores.data() + j * kTiles * 16);
  }
  kernels.score_k4({packed.data(), kTiles, kHeadDim, kQueries, q_rows.data(), bias.data(), score_rows.data()});
  for (int j = 0; j < kQueries; ++j) {
    for (int t = 0; t < kTiles * 16; ++t) {
      double expected = bias[j];
      for (int c = 0; c < kHeadDim; ++c) expected += double{q[j * kHeadDim + c]} * at(t / 16, c, t % 16);
      ASSERT_NEAR(score_rows[j][t], expected, 1e-3);
    }
  }
}

TEST_P(RecallScanTest, SharesAreTheSoftmaxOfSomeRowsBeforeItsDivision) {
  const RecallScanKernels& kernels = KernelsOf(GetParam());
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0, 20);
  for (const int count : {1, 15, 16, 17, 200}) {
    std::vector<float> x(count), shares(count, -1.0f);
    std::vector<uint8_t> which(count);
    for (int i = 0; i < count; ++i) {
      x[i] = normal(random);
      which[i] = i == 0 || random() % 3 == 0 ? 1 + random() % 2 : 0;
    }
    constexpr float kScale = 0.25f;
    ShareSums sums;
    kernels.shares_of(x.data(), which.data(), count, kScale, shares.data(), &sums);
    double maximum = -1e30, chosen = 0, all = 0;
    for (int i = 0; i < count; ++i) maximum = which[i] > 0 ? std::max(maximum, double{x[i]} * kScale) : maximum;
    for (int i = 0; i < count; ++i) {
      const double e = std::exp(x[i] * kScale - maximum);
      ASSERT_NEAR(shares[i], which[i] > 0 ? e : 0, 1e-5 * e + 1e-36);
      chosen += which[i] > 0 ? e : 0;
      all += e;
    }
    ASSERT_NEAR(sums.chosen, chosen, 1e-4 * chosen);
    ASSERT_NEAR(sums.all, all, 1e-4 * all);
  }
}

TEST_P(RecallScanTest, RowsThatWeighMuchOrAreMarkedAreListed) {
  const RecallScanKernels& kernels = KernelsOf(GetParam());
  constexpr float kScale = 0.25f, kLeast = 0.004f;
  constexpr uint8_t kMark = 2;
  std::mt19937 random(8);
  std::normal_distribution<float> normal(0, 8);
  for (const int queries : {1, 3, 4, 6}) {
    for (const int count : {1, 16, 45, 200}) {
      const int room = (count + 15) / 16 * 16;
      std::vector<uint8_t> which(count);
      for (int i = 0; i < count; ++i) which[i] = i == 0 ? 1 : static_cast<uint8_t>(random() % 3);
      std::vector<std::vector<float>> x(queries, std::vector<float>(room)), expected(queries), share = x;
      std::vector<float> factor(queries), weights(count, 0.0f), weight(room);
      std::vector<float*> x_rows, share_rows;
      for (int j = 0; j < queries; ++j) {
        for (float& value : x[j]) value = normal(random);
        expected[j].resize(count);
        ShareSums sums;
        kernels.shares_of(x[j].data(), which.data(), count, kScale, expected[j].data(), &sums);
        factor[j] = 1.0f / (sums.chosen * static_cast<float>(queries));
        for (int i = 0; i < count; ++i) weights[i] += factor[j] * expected[j][i];
        std::copy(expected[j].begin(), expected[j].end(), share[j].begin());
        x_rows.push_back(x[j].data());
        share_rows.push_back(share[j].data());
      }
      const std::vector<std::vector<float>> before = x;
      WeighRowsTask task{.shares = share_rows.data(), .x = x_rows.data(), .which = which.data()};
      task.queries = queries;
      task.count = count;
      task.factor = factor.data();
      task.least = kLeast;
      task.mark = kMark;
      double marked = 0, above = 0;
      std::vector<int32_t> rows(room), listed;
      for (int i = 0; i < count; ++i) {
        (which[i] == kMark ? marked : above) += which[i] == kMark || weights[i] > kLeast ? weights[i] : 0;
        if (which[i] == kMark || weights[i] > kLeast) listed.push_back(i);
      }
      WeightSums sums;
      kernels.sum_weights(task, &sums);
      EXPECT_NEAR(sums.marked, marked, 1e-5);
      EXPECT_NEAR(sums.above, above, 1e-5);
      const int32_t found = kernels.list_rows(
          task, {.rows = rows.data(), .weight = weight.data(), .x = x_rows.data(), .shares = share_rows.data()});
      ASSERT_EQ(std::vector<int32_t>(rows.begin(), rows.begin() + found), listed);
      for (int32_t i = 0; i < found; ++i) {
        ASSERT_EQ(weight[i], weights[listed[i]]);
        for (int j = 0; j < queries; ++j) {
          ASSERT_EQ(x[j][i], before[j][listed[i]]) << "in their own place";
          ASSERT_EQ(share[j][i], expected[j][listed[i]]);
        }
      }
    }
  }
}

TEST_P(RecallScanTest, WeighedSharesAndThoseAboveALimit) {
  const RecallScanKernels& kernels = KernelsOf(GetParam());
  std::mt19937 random(7);
  for (const int count : {1, 7, 8, 40, 133}) {
    std::vector<std::vector<float>> shares(3, std::vector<float>(count));
    std::vector<const float*> rows;
    for (std::vector<float>& of_query : shares) {
      for (float& x : of_query) x = static_cast<float>(random() % 100) / 100;
      rows.push_back(of_query.data());
    }
    const std::vector<float> factor = {0.5f, 0.25f, 2.0f};
    std::vector<float> weight(count), above_weight(count + 16);
    std::vector<int32_t> above(count + 16), expected;
    WeighSharesTask task{.shares = rows.data(), .factor = factor.data(), .queries = 3, .count = count, .least = 1.5f};
    task.weight = weight.data();
    task.above = above.data();
    task.above_weight = above_weight.data();
    const int32_t found = kernels.weigh_shares(task);
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(weight[i], factor[0] * shares[0][i] + factor[1] * shares[1][i] + factor[2] * shares[2][i]);
      if (weight[i] > 1.5f) expected.push_back(i);
    }
    ASSERT_EQ(std::vector<int32_t>(above.begin(), above.begin() + found), expected);
    for (int32_t i = 0; i < found; ++i) ASSERT_EQ(above_weight[i], weight[above[i]]);
  }
}

TEST_P(RecallScanTest, SharesByWhatIsKnownBetter) {
  for (const int count : {1, 16, 45}) {
    std::vector<float> estimate = RandomQueries(1, count, 5), exact = RandomQueries(1, count, 6), shares(count, 0.5f);
    exact[0] = estimate[0];
    double sum = 0;
    std::vector<double> expected;
    for (int i = 0; i < count; ++i) {
      expected.push_back(0.5 * std::exp(0.3 * (exact[i] - estimate[i])));
      sum += expected.back();
    }
    const float got = KernelsOf(GetParam()).correct_shares(estimate.data(), exact.data(), count, 0.3f, shares.data());
    EXPECT_NEAR(got, sum, 2e-5 * sum);
    EXPECT_EQ(shares[0], 0.5f);
    for (int i = 0; i < count; ++i) EXPECT_NEAR(shares[i], expected[i], 2e-5 * expected[i]);
  }
}

TEST_P(RecallScanTest, DotsOfHalfPrecisionKeys) {
  constexpr int kHeadDim = 48, kStride = 100, kRows = 21, kQueries = 6;
  const std::vector<float> q = RandomQueries(kQueries, kHeadDim, 1), keys = RandomQueries(kRows, kStride, 2);
  std::vector<uint16_t> halves(keys.size());
  FloatToHalf(keys.data(), static_cast<int64_t>(keys.size()), halves.data());
  std::vector<float> exact(keys.size()), scores(kQueries * kRows);
  HalfToFloat(halves.data(), static_cast<int64_t>(keys.size()), exact.data());
  std::vector<const float*> q_rows;
  std::vector<float*> score_rows;
  for (int j = 0; j < kQueries; ++j) {
    q_rows.push_back(q.data() + j * kHeadDim);
    score_rows.push_back(scores.data() + j * kRows);
  }
  KernelsOf(GetParam())
      .dot_halves({halves.data(), kStride, kRows, kHeadDim}, kQueries, q_rows.data(), score_rows.data());
  std::vector<const uint16_t*> key_rows;
  for (int i = 0; i < kRows; ++i) key_rows.push_back(halves.data() + i * kStride);
  std::vector<float> together = scores;
  std::fill(scores.begin(), scores.end(), 0.0f);
  KernelsOf(GetParam()).dot_halves_at(key_rows.data(), kRows, kHeadDim, kQueries, q_rows.data(), score_rows.data());
  EXPECT_EQ(scores, together);
  for (int j = 0; j < kQueries; ++j) {
    for (int i = 0; i < kRows; ++i) {
      double expected = 0;
      for (int c = 0; c < kHeadDim; ++c) expected += double{q[j * kHeadDim + c]} * exact[i * kStride + c];
      ASSERT_NEAR(score_rows[j][i], expected, 1e-4);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, RecallScanTest, testing::ValuesIn(SupportedIsas()),
                         [](const testing::TestParamInfo<Isa>& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace tidepool
