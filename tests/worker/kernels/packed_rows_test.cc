// Packed pages: what is written into them, and attention over them on every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/limits.h"
#include "policies/kv/packed_page.h"
#include "policies/retain/kivi.h"
#include "worker/backend/cpu/pack_rows.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const char* Name(KvPrecision precision) {
  switch (precision) {
    case KvPrecision::kF16: return "f16";
    case KvPrecision::kInt8: return "int8";
    case KvPrecision::kKivi4: return "kivi4";
    case KvPrecision::kKivi2: return "kivi2";
  }
  return "";
}

constexpr KvPrecision kPacked[] = {KvPrecision::kInt8, KvPrecision::kKivi4, KvPrecision::kKivi2};

// Half-precision numbers, a few channels of the keys far from zero.
std::vector<float> RandomRows(int rows, int head_dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(static_cast<size_t>(rows) * head_dim);
  for (size_t i = 0; i < x.size(); ++i) x[i] = normal(random) + (i % head_dim == 3 ? 9.0f : 0.0f);
  std::vector<uint16_t> halves(x.size());
  FloatToHalf(x.data(), static_cast<int64_t>(x.size()), halves.data());
  HalfToFloat(halves.data(), static_cast<int64_t>(x.size()), x.data());
  return x;
}

struct Group {
  Group(KvPrecision precision, int head_dim, const float* keys, const float* values)
      : bytes(PackedPage(precision, head_dim).bytes),
        page(static_cast<char*>(std::aligned_alloc(64, bytes)), &std::free) {
    std::memset(page.get(), 0xff, bytes);
    PackRows(precision, head_dim, keys, values, page.get());
  }
  size_t bytes;
  std::unique_ptr<char, decltype(&std::free)> page;
};

TEST(PackedPageTest, TakesTheBytesOfItsCodesAndRanges) {
  // head_dim 64: codes of 32 tokens * 128 elements, ranges in halves.
  EXPECT_EQ(PackedPage(KvPrecision::kInt8, 64).bytes, 32 * 128 + 2 * 64);
  EXPECT_EQ(PackedPage(KvPrecision::kKivi4, 64).bytes, 32 * 128 / 2 + 2 * 128 + 2 * 32 * 2 * 2);
  EXPECT_EQ(PackedPage(KvPrecision::kKivi2, 64).bytes, 32 * 128 / 4 + 2 * 128 + 2 * 32 * 2 * 2);
  EXPECT_EQ(ResidentRowBytes(KvPrecision::kF16, 64, 256), 256.0);
  EXPECT_EQ(ResidentRowBytes(KvPrecision::kInt8, 64, 256), 132.0);
  EXPECT_EQ(ResidentRowBytes(KvPrecision::kKivi4, 64, 256), 80.0);
  EXPECT_EQ(ResidentRowBytes(KvPrecision::kKivi2, 64, 256), 48.0);
  for (const KvPrecision precision : kPacked) {
    for (int head_dim = 16; head_dim <= 256; head_dim += 16) {
      const PackedPage page(precision, head_dim);
      EXPECT_EQ(page.bytes % 64, 0u);
      EXPECT_EQ(page.key_codes % 64, 0u);
      EXPECT_EQ(head_dim % page.value_group, 0);
    }
  }
}

TEST(PackRowsTest, KiviRowsAreThoseOfThePureFunctions) {
  for (const KvPrecision precision : {KvPrecision::kKivi4, KvPrecision::kKivi2}) {
    for (int head_dim : {16, 48, 64, 128}) {
      const std::vector<float> keys = RandomRows(kGroupTokens, head_dim, 1),
                               values = RandomRows(kGroupTokens, head_dim, 2);
      const Group group(precision, head_dim, keys.data(), values.data());
      KiviFormat format{.bits = CodeBits(precision), .group = kGroupTokens, .half_scales = true};
      const std::vector<float> expected_keys = DequantizeKeys(QuantizeKeys(keys, head_dim, format), head_dim, format);
      format.group = head_dim % 32 == 0 ? 32 : 16;
      const std::vector<float> expected_values =
          DequantizeValues(QuantizeValues(values, head_dim, format), head_dim, format);
      std::vector<float> key(head_dim), value(head_dim);
      for (int token = 0; token < kGroupTokens; ++token) {
        UnpackRow(precision, head_dim, group.page.get(), token, key.data(), value.data());
        for (int c = 0; c < head_dim; ++c) {
          ASSERT_EQ(key[c], expected_keys[token * head_dim + c]) << Name(precision) << head_dim;
          ASSERT_EQ(value[c], expected_values[token * head_dim + c]) << Name(precision) << head_dim;
        }
      }
    }
  }
}

TEST(PackRowsTest, Int8IsWithinHalfAStepOfEachRow) {
  constexpr int kHeadDim = 64;
  std::vector<float> keys = RandomRows(kGroupTokens, kHeadDim, 3), values = RandomRows(kGroupTokens, kHeadDim, 4);
  std::fill_n(keys.begin() + 5 * kHeadDim, kHeadDim, 0.0f);
  values[7 * kHeadDim + 2] = std::numeric_limits<float>::infinity();
  const Group group(KvPrecision::kInt8, kHeadDim, keys.data(), values.data());
  std::vector<float> key(kHeadDim), value(kHeadDim);
  for (int token = 0; token < kGroupTokens; ++token) {
    UnpackRow(KvPrecision::kInt8, kHeadDim, group.page.get(), token, key.data(), value.data());
    float largest = 0;
    for (int c = 0; c < kHeadDim; ++c) largest = std::max(largest, std::abs(keys[token * kHeadDim + c]));
    for (int c = 0; c < kHeadDim; ++c) {
      // The scale is rounded to 11 bits.
      ASSERT_NEAR(key[c], keys[token * kHeadDim + c], 0.51f * largest / 127);
      if (token == 7) {
        ASSERT_EQ(value[c], 0) << "a row that is no numbers is packed as zero";
      }
    }
  }
}

TEST(PackRowsTest, AnInt8RowMovesBitForBit) {
  constexpr int kHeadDim = 48;
  const std::vector<float> a = RandomRows(kGroupTokens, kHeadDim, 5), b = RandomRows(kGroupTokens, kHeadDim, 6);
  const Group from(KvPrecision::kInt8, kHeadDim, a.data(), b.data()),
      to(KvPrecision::kInt8, kHeadDim, b.data(), a.data());
  CopyInt8Row(kHeadDim, from.page.get(), 3, to.page.get(), 20);
  std::vector<float> row(2 * kHeadDim), moved(2 * kHeadDim);
  for (int token = 0; token < kGroupTokens; ++token) {
    const Group untouched(KvPrecision::kInt8, kHeadDim, b.data(), a.data());
    const bool is_moved = token == 20;
    UnpackRow(KvPrecision::kInt8, kHeadDim, is_moved ? from.page.get() : untouched.page.get(), is_moved ? 3 : token,
              row.data(), row.data() + kHeadDim);
    UnpackRow(KvPrecision::kInt8, kHeadDim, to.page.get(), token, moved.data(), moved.data() + kHeadDim);
    ASSERT_EQ(row, moved) << token;
  }
}

const AttentionKernels& KernelsOf(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx512: return cpu_avx512::kAttentionKernels;
    case Isa::kAvx2: return cpu_avx2::kAttentionKernels;
#endif
    default: return cpu_baseline::kAttentionKernels;
  }
}

class PackedAttentionTest : public testing::TestWithParam<std::tuple<Isa, KvPrecision>> {};

// Two groups and two slot pages of one head; a page that was freed lies between them. Half of the first group's rows
// have left.
TEST_P(PackedAttentionTest, EqualsPlainArithmeticOnTheUnpackedRows) {
  const auto [isa, precision] = GetParam();
  for (int head_dim : {16, 48, 64, 128, 256}) {
    const std::vector<float> k = RandomRows(96, head_dim, 11), v = RandomRows(96, head_dim, 12);
    const Group first(precision, head_dim, k.data(), v.data());
    const Group second(precision, head_dim, k.data() + 32 * head_dim, v.data() + 32 * head_dim);
    std::vector<uint16_t> plain(static_cast<size_t>(2) * 2 * kPageSlots * head_dim);
    const size_t page_halves = static_cast<size_t>(2) * kPageSlots * head_dim;
    for (int i = 0; i < 32; ++i) {
      uint16_t* page = plain.data() + i / kPageSlots * page_halves;
      for (int c = 0; c < head_dim; ++c) {
        FloatToHalf(&k[(64 + i) * head_dim + c], 1, page + c * kPageSlots + i % kPageSlots);
        FloatToHalf(&v[(64 + i) * head_dim + c], 1, page + (kPageSlots + i % kPageSlots) * head_dim + c);
      }
    }
    const void* pages[] = {plain.data(),      first.page.get(),  first.page.get(),          nullptr,
                           second.page.get(), second.page.get(), plain.data() + page_halves};
    const uint8_t halves[] = {0, 1, 2, 1, 1, 2, 0};
    // Row i of k lies in this slot; even rows of the first group have left.
    std::vector<int32_t> order;
    std::vector<int> row_of;
    for (int i = 1; i < 96; i += i < 32 ? 2 : 1) {
      row_of.push_back(i);
      order.push_back(i < 32 ? 16 + i : i < 64 ? 64 + i - 32 : i < 80 ? i - 64 : 96 + i - 80);
    }
    std::vector<std::vector<float>> keys, values;
    for (int i : row_of) {
      keys.emplace_back(k.begin() + i * head_dim, k.begin() + (i + 1) * head_dim);
      values.emplace_back(v.begin() + i * head_dim, v.begin() + (i + 1) * head_dim);
      if (i < 64) {
        UnpackRow(precision, head_dim, (i < 32 ? first : second).page.get(), i % 32, keys.back().data(),
                  values.back().data());
      }
    }
    const int rows = static_cast<int>(order.size());
    const std::vector<int32_t> visible = {rows, 1, 20, rows - 1, rows};
    const std::vector<float> q = RandomRows(5, head_dim, 13);
    std::vector<float> out(q.size()), probabilities(5 * rows), sums(7 * kPageSlots, 0.0f);
    std::vector<const float*> q_rows;
    std::vector<float*> out_rows, sum_rows(5, sums.data());
    for (int j = 0; j < 5; ++j) {
      q_rows.push_back(q.data() + j * head_dim);
      out_rows.push_back(out.data() + j * head_dim);
    }
    const PackedPage layout(precision, head_dim);
    AttentionTask task;
    task.pages = pages;
    task.halves = halves;
    task.packed = precision;
    task.packed_layout = &layout;
    task.slots = 7 * kPageSlots;
    task.order = order.data();
    task.rows = rows;
    task.head_dim = head_dim;
    task.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    task.queries = 5;
    task.q = q_rows.data();
    task.visible = visible.data();
    task.out = out_rows.data();
    task.column_sums = sum_rows.data();
    task.probabilities = probabilities.data();
    task.probability_stride = rows;
    const size_t bytes = ScratchOf(task).end * sizeof(float);
    std::unique_ptr<float, decltype(&std::free)> scratch(
        static_cast<float*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64)), &std::free);
    std::memset(scratch.get(), 0x7f, bytes);
    KernelsOf(isa).f16.attend(task, scratch.get());
    for (int j = 0; j < 5; ++j) {
      std::vector<double> p(rows, 0.0);
      double sum = 0;
      for (int i = 0; i < visible[j]; ++i) {
        double dot = 0;
        for (int c = 0; c < head_dim; ++c) dot += double{q[j * head_dim + c]} * keys[i][c];
        sum += p[i] = std::exp(dot / std::sqrt(static_cast<double>(head_dim)));
      }
      // Queries over int8 keys may be rounded to 16 bits.
      const double tolerance = precision == KvPrecision::kInt8 ? 1e-4 : 2e-5;
      for (int i = 0; i < rows; ++i) ASSERT_NEAR(probabilities[j * rows + i], p[i] / sum, tolerance) << head_dim;
      for (int c = 0; c < head_dim; ++c) {
        double expected = 0;
        for (int i = 0; i < rows; ++i) expected += p[i] / sum * values[i][c];
        ASSERT_NEAR(out[j * head_dim + c], expected, 1e-4) << head_dim;
      }
    }
  }
}

// All of a head at once, query by query, and in parts that score their own pages or take others' scores: the same bits.
TEST_P(PackedAttentionTest, DoesNotDependOnOtherQueriesNorOnWhoScores) {
  const auto [isa, precision] = GetParam();
  const AttentionKernels& kernels = KernelsOf(isa);
  constexpr int kHeadDim = 64, kGroups = 10, kQueries = 9;
  std::vector<Group> groups;
  std::vector<const void*> pages;
  std::vector<uint8_t> halves;
  std::vector<int32_t> order;
  for (int g = 0; g < kGroups; ++g) {
    const std::vector<float> k = RandomRows(kGroupTokens, kHeadDim, 20 + g),
                             v = RandomRows(kGroupTokens, kHeadDim, 40 + g);
    const Group& group = groups.emplace_back(precision, kHeadDim, k.data(), v.data());
    for (const uint8_t half : {1, 2}) {
      pages.push_back(group.page.get());
      halves.push_back(half);
    }
    for (int i = 0; i < kGroupTokens; ++i) {
      if (g % 3 == 0 || (g + i) % 7 != 0) order.push_back(g * kGroupTokens + i);  // others have left
    }
  }
  std::swap(order[3], order[18]);  // rows that took a hole
  const PackedPage layout(precision, kHeadDim);
  const std::vector<float> q = RandomRows(kQueries, kHeadDim, 14);
  auto floats = [](int64_t count) {
    return std::unique_ptr<float, decltype(&std::free)>(
        static_cast<float*>(std::aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64)), &std::free);
  };
  enum class How { kWhole, kWithScores, kLocally };
  auto attend = [&](int first, int queries, How how) {
    std::vector<float> out(queries * kHeadDim);
    std::vector<const float*> q_rows;
    std::vector<float*> out_rows;
    for (int j = 0; j < queries; ++j) {
      q_rows.push_back(q.data() + (first + j) * kHeadDim);
      out_rows.push_back(out.data() + j * kHeadDim);
    }
    const std::vector<int32_t> visible(queries, static_cast<int32_t>(order.size()));
    AttentionTask task;
    task.pages = pages.data();
    task.halves = halves.data();
    task.packed = precision;
    task.packed_layout = &layout;
    task.slots = kGroups * kGroupTokens;
    task.order = order.data();
    task.rows = static_cast<int32_t>(order.size());
    task.head_dim = kHeadDim;
    task.scale = 0.125f;
    task.queries = queries;
    task.q = q_rows.data();
    task.visible = visible.data();
    task.out = out_rows.data();
    if (how == How::kWhole) {
      kernels.f16.attend(task, floats(ScratchOf(task).end).get());
      return out;
    }
    const auto scratch = floats(PartScratchFloats(queries, kHeadDim)),
               scores = floats(queries * SlotFloats(task.slots));
    const bool locally = how == How::kLocally;
    if (!locally) {
      kernels.f16.score_pages(task, 0, static_cast<int32_t>(pages.size()), scores.get(), scratch.get());
    }
    const int64_t part_floats = queries * PartialFloats(kHeadDim);
    const auto partials = floats((PartsOf(task.rows) + 1) * part_floats);
    for (int32_t part = PartsOf(task.rows) - 1; part >= 0; --part) {
      EXPECT_TRUE(!locally || IsLocal(task, part));
      kernels.f16.attend_part(task, part, (part + 1) * (kPartRows / kPageSlots), locally ? nullptr : scores.get(),
                              nullptr, partials.get() + part * part_floats, scratch.get());
    }
    kernels.merge_parts(task, partials.get(), locally ? nullptr : scores.get(),
                        partials.get() + PartsOf(task.rows) * part_floats);
    return out;
  };
  const std::vector<float> all = attend(0, kQueries, How::kWhole);
  EXPECT_EQ(all, attend(0, kQueries, How::kWithScores));
  for (const How how : {How::kWhole, How::kWithScores, How::kLocally}) {
    for (const int queries : {1, 3}) {
      for (int j = 0; j < kQueries; j += queries) {
        const std::vector<float> some(all.begin() + j * kHeadDim, all.begin() + (j + queries) * kHeadDim);
        EXPECT_EQ(some, attend(j, queries, how)) << j << " " << queries << " " << static_cast<int>(how);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, PackedAttentionTest,
                         testing::Combine(testing::ValuesIn(SupportedIsas()), testing::ValuesIn(kPacked)),
                         [](const testing::TestParamInfo<std::tuple<Isa, KvPrecision>>& info) {
                           return std::string(IsaName(std::get<0>(info.param))) + "_" + Name(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace tidepool
