// Kernels of one line: what can be wrong with them is where they end.
#include "tests/worker/kernels/cuda/device_fixture.h"
#include "worker/kernels/cuda/move_rows_body.h"
#include "worker/kernels/cuda/rows_body.h"

namespace tidepool::cuda {
namespace {

class SmallKernelsTest : public DeviceTest {};

TEST_F(SmallKernelsTest, BiasesAreAddedToEveryRow) {
  for (int columns : {4, AddBias::kThreads, AddBias::kThreads + 36}) {
    constexpr int kRows = 3;
    std::vector<float> bias(columns), x(kRows * columns);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = 0.5f * static_cast<float>(i + 1);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
    float* on_device = Upload(x);
    device_->Launch<AddBias>({kRows}, {Upload(bias), on_device, columns});
    const std::vector<float> got = Download(on_device, x.size());
    for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i], x[i] + bias[i % columns]) << columns << " columns, " << i;
  }
}

TEST_F(SmallKernelsTest, EntriesArriveWhereTheyBelongAndNowhereElse) {
  for (int count : {1, UpdateEntries::kThreads, UpdateEntries::kThreads + 5}) {
    std::vector<PageEntry> before(2 * count);
    for (uint32_t i = 0; i < before.size(); ++i) before[i] = {.place = i, .valid = 1};
    PageEntry* entries = Upload(before);
    std::vector<UpdateEntries::Update> updates;  // of every second entry, the last first
    for (int i = 0; i < count; ++i) {
      updates.push_back({entries + 2 * (count - 1 - i), {.place = static_cast<uint32_t>(1000 + i), .valid = 0xffff}});
    }
    device_->Launch<UpdateEntries>({CeilDiv(count, UpdateEntries::kThreads)}, {Upload(updates), count});
    const std::vector<PageEntry> got = Download(entries, before.size());
    for (int i = 0; i < 2 * count; ++i) {
      const bool updated = i % 2 == 0;
      ASSERT_EQ(got[i].place, static_cast<uint32_t>(updated ? 1000 + count - 1 - i / 2 : i)) << count << " updates";
      ASSERT_EQ(got[i].valid, updated ? 0xffff : 1u) << count << " updates";
    }
  }
}

TEST(KernelListTest, NamesAreAsTheyAreWritten) {
  EXPECT_EQ(KernelName(kKernelId<PrepareRows>), "PrepareRows");
  EXPECT_EQ(KernelName((kKernelId<AttendSplit<16, 4>>)), "AttendSplit<16, 4>");
  EXPECT_EQ(KernelName((kKernelId<MatVec<MatrixFormat::kNibblesK, 1, 128>>)),
            "MatVec<MatrixFormat::kNibblesK, 1, 128>");
}

}  // namespace
}  // namespace tidepool::cuda
