// Places of pages in device memory: whatever is taken and given back, there is one for every page within the budget,
// and what a page holds stays.
#include "worker/backend/cuda/device_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "worker/kernels/cuda/host_device.h"

namespace tidepool::cuda {
namespace {

class DevicePagesTest : public testing::Test {
 protected:
  static constexpr int32_t kPages = 2000;

  DevicePagesTest() {
    layout_.head_dim = 64;
    layout_.type = KvType::kF16;
    pages_ = *DevicePages::Create(device_.get(), layout_, kPages);
    pool_ = std::make_unique<PagePool>(kPages, DevicePages::BytesOf(layout_));
    pool_->set_hold([this](KvPrecision precision, int32_t page) {
      pages_->Hold(precision, page, [this](absl::Span<const CopyPages::Copy> copies, size_t bytes) {
        for (const CopyPages::Copy& copy : copies) std::memcpy(copy.to, copy.from, bytes);
        copied_ += copies.size();
      });
    });
    pool_->set_release(
        [this](KvPrecision precision, absl::Span<const int32_t> pages) { pages_->Release(precision, pages); });
  }

  char* At(KvPrecision precision, int32_t page) { return pages_->view().Page(pages_->Place(precision, page)); }
  size_t Bytes(KvPrecision precision) const { return pool_->page_bytes(precision); }
  void Take(KvPrecision precision) {
    const int32_t page = pool_->Allocate(precision);
    const auto content = static_cast<char>(random_());
    std::memset(At(precision, page), content, Bytes(precision));
    ASSERT_TRUE(held_.emplace(std::pair{precision, page}, content).second);
  }
  void Give(int which) {
    const auto at = std::next(held_.begin(), which);
    pool_->Free(at->first.second, at->first.first);
    held_.erase(at);
  }
  bool Fits(KvPrecision precision) const {
    return pool_->used_bytes() + static_cast<int64_t>(Bytes(precision)) <=
           int64_t{kPages} * static_cast<int64_t>(Bytes(KvPrecision::kF16));
  }
  void CheckAll() {
    for (const auto& [of, content] : held_) {
      const char* page = At(of.first, of.second);
      ASSERT_TRUE(std::all_of(page, page + Bytes(of.first), [c = content](char x) { return x == c; }));
    }
  }

  const std::unique_ptr<Device> device_ = MakeHostDevice(1);
  KvLayout layout_;
  std::unique_ptr<DevicePages> pages_;
  std::unique_ptr<PagePool> pool_;
  std::map<std::pair<KvPrecision, int32_t>, char> held_;
  size_t copied_ = 0;
  std::mt19937 random_{1};
};

TEST_F(DevicePagesTest, EveryMixtureUpToTheBudgetFits) {
  for (int round = 0; round < 12; ++round) {
    // Fill with two precisions, give most back in no order, so that few are left in every slab; then another.
    const auto first = static_cast<KvPrecision>(round % kKvPrecisions),
               second = static_cast<KvPrecision>((round + 1 + round / kKvPrecisions) % kKvPrecisions);
    while (Fits(first) && Fits(second)) Take(random_() % 2 == 0 ? first : second);
    const size_t left = held_.size() / 7;
    while (held_.size() > left) Give(static_cast<int>(random_() % held_.size()));
    const auto third = static_cast<KvPrecision>((round + 2) % kKvPrecisions);
    while (Fits(third)) Take(third);
    CheckAll();
  }
  EXPECT_GT(copied_, 0u);
  EXPECT_GT(pages_->moves(), 0);
}

TEST_F(DevicePagesTest, OnePrecisionAloneMovesNothing) {
  for (int round = 0; round < 5; ++round) {
    while (Fits(KvPrecision::kF16)) Take(KvPrecision::kF16);
    while (held_.size() > 100) Give(static_cast<int>(random_() % held_.size()));
  }
  CheckAll();
  EXPECT_EQ(pages_->moves(), 0);
}

}  // namespace
}  // namespace tidepool::cuda
