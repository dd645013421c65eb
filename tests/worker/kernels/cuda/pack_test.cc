// Rows into packed pages, and between them: the bytes that the cpu packs.
#include <limits>
#include <random>

#include "tests/worker/kernels/cuda/device_fixture.h"
#include "tests/worker/kernels/cuda/packed_image.h"
#include "worker/kernels/cuda/pack_rows_body.h"

namespace tidepool::cuda {
namespace {

class PackTest : public DeviceTest, public testing::WithParamInterface<std::tuple<KvPrecision, int>> {
 protected:
  PackTest() : precision_(std::get<0>(GetParam())), head_dim_(std::get<1>(GetParam())) {}

  // [rows][K, V][head_dim] of halves: channels far from 0, a row of zeros, and numbers that are none.
  std::vector<uint16_t> RandomRows(int rows) {
    std::vector<uint16_t> x(static_cast<size_t>(rows) * 2 * head_dim_);
    for (size_t i = 0; i < x.size(); ++i) x[i] = FloatToHalf(normal_(random_) + (i % head_dim_ == 3 ? 9.0f : 0.0f));
    std::fill_n(x.begin() + 4 * head_dim_, 2 * head_dim_, uint16_t{0});
    x[11 * head_dim_ + 2] = 0x7c00;
    x[16 * head_dim_ + 7] = 0x7e00;
    return x;
  }
  std::vector<float> Half(const std::vector<uint16_t>& rows, int group, bool values) const {
    std::vector<float> x;
    for (int token = group * kGroupTokens; token < (group + 1) * kGroupTokens; ++token) {
      for (int c = 0; c < head_dim_; ++c) x.push_back(HalfToFloat(rows[(2 * token + values) * head_dim_ + c]));
    }
    return x;
  }

  // Of a page, without what fills its parts up: [begin, end).
  std::vector<std::pair<size_t, size_t>> Parts() const {
    const PackedPage layout(precision_, head_dim_);
    const bool kivi = precision_ != KvPrecision::kInt8;
    const size_t keys = size_t{2} * (kivi ? head_dim_ : kGroupTokens);
    const size_t values = size_t{2} * kGroupTokens * layout.value_groups;
    const size_t codes = size_t{kGroupTokens} * head_dim_ * CodeBits(precision_) / 8;
    std::vector<std::pair<size_t, size_t>> parts = {{0, keys},
                                                    {layout.value_scales, layout.value_scales + values},
                                                    {layout.key_codes, layout.key_codes + codes},
                                                    {layout.value_codes, layout.value_codes + codes}};
    if (kivi) {
      parts.push_back({layout.key_minimums, layout.key_minimums + keys});
      parts.push_back({layout.value_minimums, layout.value_minimums + values});
    }
    return parts;
  }

  const KvPrecision precision_;
  const int head_dim_;
  std::mt19937 random_{5};
  std::normal_distribution<float> normal_;
};

TEST_P(PackTest, GroupsAreTheCpusBitForBit) {
  constexpr int kGroups = 3;
  const std::vector<uint16_t> rows = RandomRows(kGroups * kGroupTokens);
  const uint16_t* on_device = Upload(rows);
  std::vector<const uint16_t*> places;  // the groups backwards
  for (int i = 0; i < kGroups * kGroupTokens; ++i) {
    const int row = (kGroups - 1 - i / kGroupTokens) * kGroupTokens + i % kGroupTokens;
    places.push_back(on_device + static_cast<size_t>(row) * 2 * head_dim_);
  }
  const size_t bytes = PackedPage(precision_, head_dim_).bytes;
  PackGroups::Args args{.rows = Upload(places), .value_offset = head_dim_, .pages = Make<char>(kGroups * bytes)};
  args.head_dim = head_dim_;
  args.precision = precision_;
  device_->Launch<PackGroups>({CeilDiv(PackGroups::RangesOf(precision_, head_dim_), PackGroups::kThreads), kGroups},
                              args);
  const std::vector<char> got = Download(args.pages, kGroups * bytes);
  for (int g = 0; g < kGroups; ++g) {
    const std::vector<char> expected = test::PackedOnDevice(precision_, head_dim_, Half(rows, kGroups - 1 - g, false),
                                                            Half(rows, kGroups - 1 - g, true));
    for (const auto& [begin, end] : Parts()) {
      for (size_t i = begin; i < end; ++i)
        ASSERT_EQ(got[g * bytes + i], expected[i]) << "group " << g << ", byte " << i;
    }
  }
}

TEST_P(PackTest, PagesAreCopiedWhole) {
  const size_t bytes = PackedPage(precision_, head_dim_).bytes;
  std::vector<char> from(3 * bytes);
  for (char& x : from) x = static_cast<char>(random_());
  const char* source = Upload(from);
  char* target = Make<char>(3 * bytes);
  const std::vector<CopyPages::Copy> copies = {{source + 2 * bytes, target}, {source, target + 2 * bytes}};
  device_->Launch<CopyPages>({2}, {Upload(copies), static_cast<int32_t>(bytes)});
  const std::vector<char> got = Download(target, 3 * bytes);
  EXPECT_TRUE(std::equal(got.begin(), got.begin() + static_cast<int64_t>(bytes),
                         from.begin() + static_cast<int64_t>(2 * bytes)));
  EXPECT_TRUE(std::equal(got.begin() + static_cast<int64_t>(2 * bytes), got.end(), from.begin()));
  EXPECT_EQ(
      std::count(got.begin() + static_cast<int64_t>(bytes), got.begin() + static_cast<int64_t>(2 * bytes), '\xff'),
      static_cast<int64_t>(bytes));
}

TEST_P(PackTest, Int8RowsMoveBitForBit) {
  if (precision_ != KvPrecision::kInt8) return;
  const PackedPage layout(precision_, head_dim_);
  std::vector<char> pages(2 * layout.bytes);
  for (char& x : pages) x = static_cast<char>(random_());
  char* on_device = Upload(pages);
  const auto second = static_cast<uint32_t>(layout.bytes / kPlaceBytes);
  auto place = [&](uint32_t page, uint16_t row) { return RowPlace{page, row, KvPrecision::kInt8}; };
  const std::vector<MovePackedRows::Move> moves = {{place(0, 31), place(second, 0)}, {place(second, 7), place(0, 9)}};
  device_->Launch<MovePackedRows>({2}, {{on_device, head_dim_}, Upload(moves)});
  std::vector<char> expected = pages;
  for (const MovePackedRows::Move& move : moves) {
    auto copy = [&](size_t part, size_t row_bytes) {
      std::memcpy(&expected[move.to.place * kPlaceBytes + part + move.to.row * row_bytes],
                  &pages[move.from.place * kPlaceBytes + part + move.from.row * row_bytes], row_bytes);
    };
    copy(0, 2);
    copy(layout.value_scales, 2);
    copy(layout.key_codes, head_dim_);
    copy(layout.value_codes, head_dim_);
  }
  EXPECT_EQ(Download(on_device, pages.size()), expected);
}

INSTANTIATE_TEST_SUITE_P(Precisions, PackTest,
                         testing::Combine(testing::Values(KvPrecision::kInt8, KvPrecision::kKivi4, KvPrecision::kKivi2),
                                          testing::Values(16, 80, 128)));

}  // namespace
}  // namespace tidepool::cuda
