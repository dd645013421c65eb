#include "worker/kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "base/limits.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const AttentionKernels& KernelsOf(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512: return cpu_avx512::kAttentionKernels;
    case Isa::kAvx2: return cpu_avx2::kAttentionKernels;
#endif
    default: return cpu_baseline::kAttentionKernels;
  }
}

// Rows of one head in pages, in a slot order of choice.
struct Head {
  Head(int rows, int head_dim, bool half, unsigned seed) : rows(rows), head_dim(head_dim), half(half) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    k.resize(static_cast<size_t>(rows) * head_dim);
    v.resize(k.size());
    for (float& x : k) x = normal(random);
    for (float& x : v) x = normal(random);
    if (half) {
      for (std::vector<float>* values : {&k, &v}) {
        std::vector<uint16_t> halves(values->size());
        FloatToHalf(values->data(), static_cast<int64_t>(values->size()), halves.data());
        HalfToFloat(halves.data(), static_cast<int64_t>(values->size()), values->data());
      }
    }
  }
  // Places row i in slot `slot_of[i]`.
  void Place(const std::vector<int32_t>& slot_of, int slots) {
    order = slot_of;
    const size_t elements = static_cast<size_t>(2) * kPageSlots * head_dim;
    const int page_count = (slots + kPageSlots - 1) / kPageSlots;
    memory.assign(page_count, std::vector<float>(elements, 1e30f));  // what is not a row must not matter
    halves.assign(page_count, std::vector<uint16_t>(elements, 0x7bff));
    for (int i = 0; i < rows; ++i) {
      std::vector<float>& page = memory[slot_of[i] / kPageSlots];
      const int slot = slot_of[i] % kPageSlots;
      for (int c = 0; c < head_dim; ++c) {
        page[c * kPageSlots + slot] = k[i * head_dim + c];
        page[(kPageSlots + slot) * head_dim + c] = v[i * head_dim + c];
      }
    }
    pages.clear();
    for (int p = 0; p < page_count; ++p) {
      if (half) {
        for (size_t e = 0; e < elements; ++e) {
          if (memory[p][e] != 1e30f) FloatToHalf(&memory[p][e], 1, &halves[p][e]);
        }
        pages.push_back(halves[p].data());
      } else {
        pages.push_back(memory[p].data());
      }
    }
    used_slots = slots;
  }
  int rows, head_dim;
  bool half;
  int used_slots = 0;
  std::vector<float> k, v;
  std::vector<int32_t> order;
  std::vector<std::vector<float>> memory;
  std::vector<std::vector<uint16_t>> halves;
  std::vector<const void*> pages;
};

struct Result {
  std::vector<float> out, probabilities;
  std::vector<float> column_sums;  // by slot
};

Result RunKernel(const AttentionKernels& kernels, const Head& head, const std::vector<float>& q,
                 const std::vector<int32_t>& visible, bool identity = false) {
  const int queries = static_cast<int>(visible.size());
  Result result;
  result.out.resize(q.size());
  result.probabilities.resize(static_cast<size_t>(queries) * head.rows);
  result.column_sums.assign(head.pages.size() * kPageSlots, 0.0f);
  std::vector<const float*> q_rows;
  std::vector<float*> out_rows, sums(queries, result.column_sums.data());
  for (int i = 0; i < queries; ++i) {
    q_rows.push_back(q.data() + i * head.head_dim);
    out_rows.push_back(result.out.data() + i * head.head_dim);
  }
  AttentionTask task;
  task.pages = head.pages.data();
  task.slots = head.used_slots;
  task.order = identity ? nullptr : head.order.data();
  task.rows = head.rows;
  task.head_dim = head.head_dim;
  task.scale = 1.0f / std::sqrt(static_cast<float>(head.head_dim));
  task.queries = queries;
  task.q = q_rows.data();
  task.visible = visible.data();
  task.out = out_rows.data();
  task.column_sums = sums.data();
  task.probabilities = result.probabilities.data();
  task.probability_stride = head.rows;
  const size_t bytes = AttentionScratchBytes(queries, head.used_slots);
  std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, (bytes + 63) / 64 * 64), &std::free);
  (head.half ? kernels.attend_f16 : kernels.attend_f32)(task, scratch.get());
  return result;
}

std::vector<float> RandomQueries(int count, int head_dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> q(static_cast<size_t>(count) * head_dim);
  for (float& x : q) x = normal(random);
  return q;
}

std::vector<int32_t> Shuffled(int rows, int slots, unsigned seed) {
  std::vector<int32_t> all(slots);
  std::iota(all.begin(), all.end(), 0);
  std::shuffle(all.begin(), all.end(), std::mt19937(seed));
  all.resize(rows);
  return all;
}

class AttentionTest : public testing::TestWithParam<Isa> {};

TEST_P(AttentionTest, EqualsSoftmaxInDoublePrecision) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  for (int head_dim : {16, 48, 64, 128, 256}) {
    for (int rows : {1, 15, 16, 17, 100}) {
      for (bool half : {false, true}) {
        Head head(rows, head_dim, half, 7 * rows + head_dim);
        head.Place(Shuffled(rows, rows + 9, 3), rows + 9);
        std::vector<int32_t> visible = {rows, (rows + 1) / 2, 1, rows, std::max(1, rows - 1)};
        const std::vector<float> q = RandomQueries(5, head_dim, rows);
        const Result got = RunKernel(kernels, head, q, visible);
        for (int j = 0; j < 5; ++j) {
          std::vector<double> p(rows, 0.0);
          double sum = 0;
          for (int i = 0; i < visible[j]; ++i) {
            double dot = 0;
            for (int c = 0; c < head_dim; ++c) dot += double{q[j * head_dim + c]} * head.k[i * head_dim + c];
            sum += p[i] = std::exp(dot / std::sqrt(static_cast<double>(head_dim)));
          }
          for (int i = 0; i < rows; ++i) ASSERT_NEAR(got.probabilities[j * rows + i], p[i] / sum, 2e-6);
          for (int c = 0; c < head_dim; ++c) {
            double out = 0;
            for (int i = 0; i < rows; ++i) out += p[i] / sum * head.v[i * head_dim + c];
            ASSERT_NEAR(got.out[j * head_dim + c], out, 2e-5);
          }
        }
        float total = 0;
        for (float s : got.column_sums) total += s;
        ASSERT_NEAR(total, 5.0f, 1e-4);
      }
    }
  }
}

TEST_P(AttentionTest, DoesNotDependOnSlotsNorOnOtherQueries) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  Head head(75, 64, true, 5);
  const std::vector<float> q = RandomQueries(6, 64, 9);
  std::vector<int32_t> visible = {75, 74, 73, 40, 75, 2};
  std::vector<int32_t> in_order(75);
  std::iota(in_order.begin(), in_order.end(), 0);
  head.Place(in_order, 75);
  const Result straight = RunKernel(kernels, head, q, visible, /*identity=*/true);
  for (unsigned seed = 0; seed < 4; ++seed) {
    head.Place(Shuffled(75, 99, seed), 99);
    const Result shuffled = RunKernel(kernels, head, q, visible);
    ASSERT_EQ(straight.out, shuffled.out);
    ASSERT_EQ(straight.probabilities, shuffled.probabilities);
  }
  for (int j = 0; j < 6; ++j) {
    const std::vector<float> one(q.begin() + j * 64, q.begin() + (j + 1) * 64);
    const Result alone = RunKernel(kernels, head, one, {visible[j]});
    ASSERT_TRUE(std::equal(alone.out.begin(), alone.out.end(), straight.out.begin() + j * 64)) << j;
  }
}

// The half-precision number nearest to `x`, ties to even; not finite beyond 65,504.
float NearestHalf(float x) {
  if (std::fabs(x) >= 65520.0f) return std::copysign(INFINITY, x);
  const int exponent = x == 0 ? -14 : std::max(std::ilogb(x), -14);
  const double quantum = std::ldexp(1.0, exponent - 10);
  return static_cast<float>(std::nearbyint(x / quantum) * quantum);
}

TEST_P(AttentionTest, HalfPrecisionRoundsToNearestEven) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  std::vector<float> in = {0.0f,      -0.0f,   1.0f,     1.00048828125f, 1.0014648f, 65504.0f,  65519.9f,    65520.0f,
                           -70000.0f, 6.1e-5f, 5.97e-8f, 2.98e-8f,       2.99e-8f,   0.333333f, -2.7182818f, 1e-10f};
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 30);
  for (int i = 0; i < 1000; ++i) in.push_back(normal(random));
  std::vector<uint16_t> got(in.size());
  kernels.float_to_half(in.data(), static_cast<int64_t>(in.size()), got.data());
  std::vector<float> back(in.size());
  kernels.half_to_float(got.data(), static_cast<int64_t>(in.size()), back.data());
  for (size_t i = 0; i < in.size(); ++i) {
    const float expected = NearestHalf(in[i]);
    if (std::isfinite(expected)) {
      EXPECT_EQ(back[i], expected) << in[i];
    } else {
      EXPECT_EQ(got[i] & 0x7fff, 0x7c00) << in[i];  // infinite
    }
    EXPECT_EQ(got[i] >> 15, std::signbit(in[i]) ? 1 : 0) << in[i];
  }
}

TEST_P(AttentionTest, ScansFourBitCodes) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
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

TEST_P(AttentionTest, SharesAreTheSoftmaxOfSomeRowsBeforeItsDivision) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0, 20);
  for (const int count : {1, 15, 16, 17, 200}) {
    std::vector<float> x(count), which(count), shares(count, -1.0f);
    for (int i = 0; i < count; ++i) {
      x[i] = normal(random);
      which[i] = i == 0 || random() % 3 == 0 ? 1.0f : 0.0f;
    }
    constexpr float kScale = 0.25f;
    float sums[2];
    kernels.shares_of(x.data(), which.data(), count, kScale, shares.data(), sums);
    double maximum = -1e30, chosen = 0, all = 0;
    for (int i = 0; i < count; ++i) maximum = which[i] > 0 ? std::max(maximum, double{x[i]} * kScale) : maximum;
    for (int i = 0; i < count; ++i) {
      const double e = std::exp(x[i] * kScale - maximum);
      ASSERT_NEAR(shares[i], which[i] * e, 1e-5 + 2e-7) << "terms below e^-16 may be taken as 0";
      chosen += which[i] * e;
      all += e;
    }
    ASSERT_NEAR(sums[0], chosen, 1e-4 * chosen);
    ASSERT_NEAR(sums[1], all, 1e-4 * all);
  }
}

TEST_P(AttentionTest, WeighedSharesAndThoseAboveALimit) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  std::mt19937 random(7);
  for (const int count : {1, 7, 8, 40, 133}) {
    std::vector<std::vector<float>> shares(3, std::vector<float>(count));
    std::vector<const float*> rows;
    for (std::vector<float>& of_query : shares) {
      for (float& x : of_query) x = static_cast<float>(random() % 100) / 100;
      rows.push_back(of_query.data());
    }
    const std::vector<float> factor = {0.5f, 0.25f, 2.0f};
    std::vector<float> weight(count);
    std::vector<int32_t> above(count + 16), expected;
    const int32_t found = kernels.weigh_shares(rows.data(), factor.data(), 3, count, 1.5f, weight.data(), above.data());
    for (int i = 0; i < count; ++i) {
      ASSERT_EQ(weight[i], factor[0] * shares[0][i] + factor[1] * shares[1][i] + factor[2] * shares[2][i]);
      if (weight[i] > 1.5f) expected.push_back(i);
    }
    above.resize(found);
    ASSERT_EQ(above, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, AttentionTest, testing::ValuesIn(SupportedIsas()),
                         [](const testing::TestParamInfo<Isa>& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace tidepool
