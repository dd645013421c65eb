#include "worker/kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "base/limits.h"
#include "tests/worker/kernels/random_queries.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/leaving_row.h"

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

const LeavingRowKernels& LeavingKernelsOf(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512: return cpu_avx512::kLeavingRowKernels;
    case Isa::kAvx2: return cpu_avx2::kLeavingRowKernels;
#endif
    default: return cpu_baseline::kLeavingRowKernels;
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
  std::vector<float> column_sums, sums;  // by slot
};

using Memory = std::unique_ptr<float, decltype(&std::free)>;

// Aligned, and full of what no result may depend on.
Memory Floats(int64_t count) {
  const size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
  Memory memory(static_cast<float*>(std::aligned_alloc(64, bytes)), &std::free);
  std::memset(memory.get(), 0x7f, bytes);
  return memory;
}

Result RunKernel(const AttentionKernels& kernels, const Head& head, const std::vector<float>& q,
                 const std::vector<int32_t>& visible, bool identity = false, bool in_parts = false,
                 KeyComparison* comparison = nullptr, const std::vector<int32_t>& holes = {}) {
  const int queries = static_cast<int>(visible.size());
  Result result;
  result.out.resize(q.size());
  result.probabilities.resize(static_cast<size_t>(queries) * head.rows);
  result.column_sums.assign(head.pages.size() * kPageSlots, 0.0f);
  result.sums = result.column_sums;
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
  task.holes = holes.data();
  task.hole_count = static_cast<int32_t>(holes.size());
  task.head_dim = head.head_dim;
  task.scale = 1.0f / std::sqrt(static_cast<float>(head.head_dim));
  task.queries = queries;
  task.q = q_rows.data();
  task.visible = visible.data();
  task.out = out_rows.data();
  task.column_sums = sums.data();
  task.sums = result.sums.data();
  task.probabilities = result.probabilities.data();
  task.probability_stride = head.rows;
  task.comparison = comparison;
  // What is asked for early changes nothing.
  std::vector<ReadAhead::Run> runs;
  for (const void* page : head.pages) runs.push_back({static_cast<const char*>(page), 3});
  ReadAhead ahead{.run = runs.data(), .end = runs.data() + runs.size(), .most = 100};
  if (queries % 2 == 1) task.ahead = &ahead;
  const AttentionKernels::OfType& of_type = head.half ? kernels.f16 : kernels.f32;
  if (!in_parts) {
    of_type.attend(task, Floats(ScratchOf(task).end).get());
    return result;
  }
  // As threads may do it: the last pages and parts first.
  const Memory scratch = Floats(PartScratchFloats(queries, head.head_dim));
  const Memory scores = Floats(ScoreRows(task) * SlotFloats(head.used_slots));
  const auto pages = static_cast<int32_t>(SlotFloats(head.used_slots) / kPageSlots);
  for (int32_t end = identity ? 0 : pages; end > 0; end -= 3) {
    of_type.score_pages(task, std::max(0, end - 3), end, scores.get(), scratch.get());
  }
  const int64_t part_floats = queries * PartialFloats(head.head_dim);
  const Memory partials = Floats((PartsOf(head.rows) + 1) * part_floats);
  const int64_t of_part = int64_t{queries} * kPartRows;
  const Memory weights = Floats(PartsOf(head.rows) * of_part);
  for (int32_t part = PartsOf(head.rows) - 1; part >= 0; --part) {
    const int32_t next = (part + 1) * (kPartRows / kPageSlots);
    const bool local = !identity && part % 2 == 0 && IsLocal(task, part);
    of_type.attend_part(task, part, next, local ? nullptr : scores.get(), weights.get() + part * of_part,
                        partials.get() + part * part_floats, scratch.get());
  }
  float* merged = partials.get() + PartsOf(head.rows) * part_floats;
  kernels.merge_parts(task, partials.get(), identity ? nullptr : scores.get(), merged);
  for (int32_t part = PartsOf(head.rows) - 1; part >= 0; --part) {
    kernels.give_part(task, part, weights.get() + part * of_part, partials.get() + part * part_floats, merged);
  }
  return result;
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
    for (int rows : {1, 15, 16, 17, 100, 256, 257, 600}) {
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
        ASSERT_EQ(got.sums, got.column_sums);
      }
    }
  }
}

TEST_P(AttentionTest, HolesAreAttendedToByNobody) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  constexpr int kSlots = 700;
  struct Case {
    const char* name;
    std::function<bool(int)> is_hole;
  };
  const Case cases[] = {{"a few", [](int slot) { return slot % 97 == 3; }},
                        {"half", [](int slot) { return slot % 2 == 0; }},
                        {"the first part", [](int slot) { return slot < kPartRows; }},
                        {"the second part", [](int slot) { return slot / kPartRows == 1 || slot == 5; }}};
  for (const Case& c : cases) {
    for (const bool half : {true, false}) {
      Head with(kSlots, 64, half, 5);
      Head without = with;
      std::vector<int32_t> holes, rows;
      for (int slot = 0; slot < kSlots; ++slot) (c.is_hole(slot) ? holes : rows).push_back(slot);
      std::reverse(holes.begin(), holes.end());
      without.rows = static_cast<int>(rows.size());
      for (std::vector<float> Head::*values : {&Head::k, &Head::v}) {
        (without.*values).clear();
        for (const int slot : rows) {
          const auto row = (with.*values).begin() + slot * 64;
          (without.*values).insert((without.*values).end(), row, row + 64);
        }
        for (const int slot : holes) std::fill_n((with.*values).begin() + slot * 64, 64, std::nanf(""));
      }
      std::vector<int32_t> all(kSlots), in_order(rows.size());
      std::iota(all.begin(), all.end(), 0);
      std::iota(in_order.begin(), in_order.end(), 0);
      with.Place(all, kSlots);
      without.Place(in_order, without.rows);
      const std::vector<float> q = RandomQueries(11, 64, 9);
      for (const size_t queries : {3, 11}) {
        const std::vector<float> some(q.begin(), q.begin() + static_cast<int64_t>(queries) * 64);
        const Result expected =
            RunKernel(kernels, without, some, std::vector<int32_t>(queries, without.rows), /*identity=*/true);
        for (const bool in_parts : {false, true}) {
          const Result got = RunKernel(kernels, with, some, std::vector<int32_t>(queries, kSlots), /*identity=*/true,
                                       in_parts, /*comparison=*/nullptr, holes);
          for (size_t i = 0; i < got.out.size(); ++i) ASSERT_NEAR(got.out[i], expected.out[i], 2e-6) << c.name;
          for (size_t i = 0; i < rows.size(); ++i) {
            ASSERT_NEAR(got.sums[rows[i]], expected.sums[i], 2e-6) << c.name;
            ASSERT_NEAR(got.column_sums[rows[i]], expected.column_sums[i], 2e-6) << c.name;
          }
          for (const int slot : holes) ASSERT_LT(got.sums[slot], 1e-30f) << c.name;
        }
      }
    }
  }
}

TEST_P(AttentionTest, DoesNotDependOnSlotsNorOnOtherQueries) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  for (const int rows : {75, 300, 700}) {
    for (const bool half : {true, false}) {
      Head head(rows, 64, half, 5);
      const std::vector<float> q = RandomQueries(11, 64, 9);
      const std::vector<int32_t> visible = {rows, rows - 1, rows - 2, 40, rows, 2, 64, 65, 74, 1, rows / 2};
      std::vector<int32_t> in_order(rows);
      std::iota(in_order.begin(), in_order.end(), 0);
      head.Place(in_order, rows);
      const Result straight = RunKernel(kernels, head, q, visible, /*identity=*/true);
      const Result parts = RunKernel(kernels, head, q, visible, /*identity=*/true, /*in_parts=*/true);
      EXPECT_EQ(straight.out, parts.out);
      EXPECT_EQ(straight.probabilities, parts.probabilities);
      EXPECT_EQ(straight.column_sums, parts.column_sums);
      for (int i = 0; i < rows; ++i)
        EXPECT_NEAR(straight.sums[i], straight.column_sums[i], 1e-5) << "rounded otherwise";
      EXPECT_EQ(straight.sums, parts.sums);
      for (unsigned seed = 0; seed < 3; ++seed) {
        head.Place(Shuffled(rows, rows + 24, seed), rows + 24);
        const Result shuffled = RunKernel(kernels, head, q, visible);
        ASSERT_EQ(straight.out, shuffled.out);
        ASSERT_EQ(straight.probabilities, shuffled.probabilities);
        for (int i = 0; i < rows; ++i) ASSERT_EQ(straight.sums[i], shuffled.sums[head.order[i]]);
        ASSERT_EQ(straight.out, RunKernel(kernels, head, q, visible, /*identity=*/false, /*in_parts=*/true).out);
      }
      for (int j = 0; j < 11; ++j) {
        const std::vector<float> one(q.begin() + j * 64, q.begin() + (j + 1) * 64);
        const Result alone = RunKernel(kernels, head, one, {visible[j]});
        ASSERT_TRUE(std::equal(alone.out.begin(), alone.out.end(), straight.out.begin() + j * 64)) << j;
      }
    }
  }
}

TEST_P(AttentionTest, ExponentialsAgreeWithDoublePrecision) {
  constexpr int kCount = 1003;
  std::vector<float> x(kCount);
  for (int i = 0; i < kCount; ++i) x[i] = 7.5f - 0.085f * static_cast<float>(i);
  std::vector<float> powers = x;
  const double sum = KernelsOf(GetParam()).exp_and_sum(powers.data(), kCount);
  double expected_sum = 0;
  EXPECT_EQ(powers[0], 1.0f) << "the maximum";
  for (int i = 0; i < kCount; ++i) {
    const double expected = std::exp(double{x[i]} - double{x[0]});
    expected_sum += expected;
    // Rounding the difference comes on top.
    ASSERT_NEAR(powers[i], expected, expected * (2e-7 + 6e-8 * std::abs(x[i] - x[0]))) << x[i] - x[0];
  }
  EXPECT_NEAR(sum, expected_sum, 1e-6 * expected_sum);
  std::vector<float> far = {0, -90, -1e30f};
  KernelsOf(GetParam()).exp_and_sum(far.data(), 3);
  for (const int i : {1, 2}) {
    EXPECT_GE(far[i], 0) << i;
    EXPECT_LT(far[i], 1e-37) << i;
  }
}

// As a policy finds it by itself. Some keys are alike, one has no length, one is not a number.
TEST_P(AttentionTest, ComparesAKeyOnTheWay) {
  const AttentionKernels& kernels = KernelsOf(GetParam());
  const LeavingRowKernels& by_itself = LeavingKernelsOf(GetParam());
  for (const int rows : {1, 2, 17, 256, 257, 600}) {
    for (const int queries : {1, 3, 4, 6, 9}) {
      const bool half = queries % 2 == 1;
      constexpr int kDim = 48;
      Head head(rows, kDim, half, rows + queries);
      for (int i = 0; i + 40 < rows; i += 7) std::copy_n(&head.k[i * kDim], kDim, &head.k[(i + 40) * kDim]);
      if (rows > 16) std::fill_n(&head.k[5 * kDim], kDim, 0.0f);
      if (rows > 256) head.k[9 * kDim] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<float> q = RandomQueries(queries, kDim, rows);
      const std::vector<int32_t> visible(queries, rows);
      std::vector<int32_t> in_order(rows), nearly(rows);
      std::iota(in_order.begin(), in_order.end(), 0);
      nearly = in_order;
      if (rows > 30) std::swap(nearly[3], nearly[20]);
      for (const std::vector<int32_t>& order : {in_order, nearly, Shuffled(rows, rows + 24, queries)}) {
        const bool identity = order == in_order;
        const int slots = identity ? rows : rows + 24;
        head.Place(order, slots);
        for (const int row : {0, 14, 255, 256, 599}) {
          if (row >= rows) continue;
          const float* key = head.k.data() + static_cast<size_t>(row) * kDim;
          KeysTask task = {.pages = head.pages.data(),
                           .slots = static_cast<int32_t>(SlotFloats(slots)),
                           .head_dim = kDim,
                           .vector = key,
                           .length = LengthOf(key, kDim)};
          std::vector<float> cosines(task.slots), of_rows(task.slots, -std::numeric_limits<float>::infinity());
          (half ? by_itself.cosines_f16 : by_itself.cosines_f32)(task, cosines.data());
          std::vector<int32_t> positions(task.slots, -1);
          for (int i = 0; i < rows; ++i) {
            positions[order[i]] = i;
            if (i != row) of_rows[order[i]] = cosines[order[i]];
          }
          std::vector<int32_t> free;
          for (int32_t i = 0; i < task.slots; ++i) {
            if (positions[i] < 0) free.push_back(i);
          }
          const int32_t slot = by_itself.largest(of_rows.data(), task.slots, positions.data());
          for (const bool in_parts : {false, true}) {
            KeyComparison comparison = {.key = key,
                                        .length = task.length,
                                        .row = row,
                                        .positions = positions.data(),
                                        .free = free.data(),
                                        .free_slots = static_cast<int32_t>(free.size())};
            const Result with = RunKernel(kernels, head, q, visible, identity, in_parts, &comparison);
            ASSERT_EQ(comparison.nearest, slot) << rows << " rows, " << queries << " queries";
            ASSERT_EQ(comparison.cosine, slot < 0 ? -std::numeric_limits<float>::infinity() : cosines[slot]);
            if (rows > 256) continue;  // else all results are numbers
            ASSERT_EQ(with.out, RunKernel(kernels, head, q, visible, identity, in_parts).out);
          }
        }
      }
    }
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

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, AttentionTest, testing::ValuesIn(SupportedIsas()),
                         [](const testing::TestParamInfo<Isa>& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace tidepool
