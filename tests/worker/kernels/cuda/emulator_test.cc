// The emulator finds what goes wrong on a GPU: each of these kernels is wrong in one way.
#include "worker/kernels/cuda/emulator.h"

#include <gtest/gtest.h>

#include <vector>

#include "worker/kernels/cuda/host_device.h"

namespace tidepool::cuda {
namespace {

enum class Bug { kNone, kNoBarrier, kNoSecondBarrier, kUnwritten, kIndex, kDivergentWarp, kDivergentBarrier };

// Sums 64 numbers over two warps, twice.
template <Bug kBug>
struct SumTwice {
  static constexpr int kThreads = 64;
  struct Args {
    const float* x;
    float* out;
  };
  struct Shared {
    SharedArray<float, 2> partial;
  };
  template <class Cta>
  static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int warp = cta.thread() / 32;
    for (int round = 0; round < 2; ++round) {
      if (kBug == Bug::kDivergentWarp && cta.thread() == 40) continue;
      const float sum = cta.WarpSum(args.x[cta.thread()]);
      if (cta.thread() % 32 == 0 && !(kBug == Bug::kUnwritten && warp == 1)) {
        shared.partial[kBug == Bug::kIndex ? warp + 1 : warp] = sum;
      }
      if (kBug != Bug::kNoBarrier) cta.Sync();
      if (cta.thread() == 0) args.out[round] = shared.partial[0] + shared.partial[1];
      if (kBug == Bug::kDivergentBarrier && warp == 1) return;
      if (kBug != Bug::kNoSecondBarrier) cta.Sync();
    }
  }
};

template <Bug kBug>
void RunSum() {
  std::vector<float> x(64, 0.5f), out(2);
  Emulate<SumTwice<kBug>>("SumTwice", {1, 1, 1}, {x.data(), out.data()});
  EXPECT_EQ(out, (std::vector<float>{32, 32}));
}

TEST(EmulatorTest, RunsACorrectKernel) { RunSum<Bug::kNone>(); }

TEST(EmulatorDeathTest, FindsReadsWithoutABarrier) {
  EXPECT_DEATH(RunSum<Bug::kNoBarrier>(), "SumTwice.*no barrier|nobody");
}
TEST(EmulatorDeathTest, FindsWritesWithoutABarrier) {
  EXPECT_DEATH(RunSum<Bug::kNoSecondBarrier>(), "no barrier since the read");
}
TEST(EmulatorDeathTest, FindsReadsOfUnwrittenMemory) { EXPECT_DEATH(RunSum<Bug::kUnwritten>(), "nobody has written"); }
TEST(EmulatorDeathTest, FindsIndexesOutOfRange) { EXPECT_DEATH(RunSum<Bug::kIndex>(), "outside its shared array"); }
TEST(EmulatorDeathTest, FindsLanesThatMissAWarpOperation) {
  EXPECT_DEATH(RunSum<Bug::kDivergentWarp>(), "not all of its warp");
}
TEST(EmulatorDeathTest, FindsThreadsThatMissABarrier) {
  EXPECT_DEATH(RunSum<Bug::kDivergentBarrier>(), "threads that have ended");
}

TEST(HostDeviceDeathTest, MemoryEndsWhereItsAllocationDoes) {
  auto device = MakeHostDevice(1);
  auto* memory = static_cast<char*>(*device->Allocate(64));
  EXPECT_DEATH(static_cast<volatile char*>(memory)[64] = 1, "");
}

TEST(HostDeviceTest, NothingHappensBeforeItIsWaitedFor) {
  auto device = MakeHostDevice(1);
  auto* memory = static_cast<int*>(*device->Allocate(sizeof(int)));
  auto* host = static_cast<int*>(*device->AllocatePinned(2 * sizeof(int)));
  host[0] = 7;
  host[1] = 0;
  device->CopyToDevice(memory, host, sizeof(int));
  device->CopyToHost(host + 1, memory, sizeof(int));
  EXPECT_EQ(host[1], 0);
  device->Synchronize();
  EXPECT_EQ(host[1], 7);
  device->Free(memory);
  device->FreePinned(host);
}

}  // namespace
}  // namespace tidepool::cuda
