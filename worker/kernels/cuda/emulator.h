// Runs kernel bodies (cta.h) on the host: a CTA's threads one after the other, each until its next barrier or warp
// operation. Deterministic. Faults of a kernel end the process with what is wrong: shared memory used without a barrier
// (shared_array.h), lanes of a warp at different warp operations, threads that leave others at a barrier.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_EMULATOR_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_EMULATOR_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "worker/kernels/cuda/cta.h"
#include "worker/kernels/cuda/fiber.h"

namespace tidepool::cuda {

class HostCta;

// The threads of one CTA at a time.
class CtaEmulator {
 public:
  static constexpr int kMaxThreads = 1024;

  CtaEmulator();
  ~CtaEmulator();

  // Runs body(cta, context) as each of `threads` threads.
  using Body = void (*)(HostCta& cta, void* context);
  void Run(const char* kernel, int threads, Grid index, Grid grid, Body body, void* context);

 private:
  friend class HostCta;
  enum class Wait : uint8_t { kNone, kBarrier, kWarp, kDone };
  enum class WarpOp : uint8_t { kSum, kMax, kMultiplyHalves };
  struct Lane {
    Fiber fiber;
    Wait wait = Wait::kNone;
    WarpOp op = WarpOp::kSum;
    int first_mask = 0, last_mask = 0;  // of the butterfly
    int count = 0;                      // values of each lane
    float* values = nullptr;
    const uint32_t *a = nullptr, *b = nullptr;  // kMultiplyHalves
    float* c = nullptr;
  };

  static void ThreadMain(void* lane);
  void WaitForBarrier();
  void WaitForWarp(WarpOp op, int first_mask, int last_mask, float* values, int count);
  void WaitForProduct(const uint32_t* a, const uint32_t* b, float* c);
  void GiveWay(Wait wait);
  // Runs a warp's lanes until all of them wait at the barrier or are done.
  void RunWarp(int warp);
  void Combine(int warp);
  void MultiplyHalves(int warp);

  std::vector<std::unique_ptr<Lane>> lanes_;
  int threads_ = 0, running_ = 0;
  Grid index_, grid_;
  Body body_ = nullptr;
  void* context_ = nullptr;
};

// A thread's view of its CTA: the interface of DeviceCta.
class HostCta {
 public:
  HostCta(CtaEmulator* emulator, int thread) : emulator_(emulator), thread_(thread) {}
  int thread() const { return thread_; }
  int x() const { return emulator_->index_.x; }
  int y() const { return emulator_->index_.y; }
  int z() const { return emulator_->index_.z; }
  Grid grid() const { return emulator_->grid_; }
  void Sync() { emulator_->WaitForBarrier(); }
  // A copy arrives when it is waited for, not before.
  template <int kCount>
  void Copy(SharedArray<Words4, kCount>& array, int to, const void* from, bool exists) {
    copies_.push_back({group_, [&array, to, from, exists] { array[to] = exists ? LoadWords(from) : Words4{}; }});
  }
  void EndCopies() { ++group_; }
  template <int kLeft>
  void WaitForCopies() {
    const auto left = std::find_if(copies_.begin(), copies_.end(),
                                   [this](const PendingCopy& copy) { return copy.group >= group_ - kLeft; });
    for (auto copy = copies_.begin(); copy != left; ++copy) copy->arrive();
    copies_.erase(copies_.begin(), left);
  }
  template <int kLanes, int kCount>
  void GroupSum(float (&values)[kCount]) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kSum, kLanes / 2, 1, values, kCount);
  }
  template <int kLanes, int kCount>
  void GroupMax(float (&values)[kCount]) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kMax, kLanes / 2, 1, values, kCount);
  }
  template <int kLanes, int kCount>
  void CrossSum(float (&values)[kCount]) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kSum, 16, kLanes, values, kCount);
  }
  template <int kLanes, int kCount>
  void CrossMax(float (&values)[kCount]) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kMax, 16, kLanes, values, kCount);
  }
  float WarpSum(float value) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kSum, 16, 1, &value, 1);
    return value;
  }
  float WarpMax(float value) {
    emulator_->WaitForWarp(CtaEmulator::WarpOp::kMax, 16, 1, &value, 1);
    return value;
  }
  bool WarpAny(bool value) { return WarpMax(value ? 1.0f : 0.0f) != 0; }
  uint32_t WarpBits(bool value) {
    const auto bit = static_cast<float>(1 << thread_ % 16);
    float halves[2] = {value && thread_ % 32 < 16 ? bit : 0, value && thread_ % 32 >= 16 ? bit : 0};
    GroupSum<32>(halves);
    return static_cast<uint32_t>(halves[0]) | static_cast<uint32_t>(halves[1]) << 16;
  }
  void MultiplyHalves(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
    emulator_->WaitForProduct(a, b, c);
  }

 private:
  struct PendingCopy {
    int group;
    std::function<void()> arrive;
  };

  CtaEmulator* const emulator_;
  const int thread_;
  int group_ = 0;
  std::vector<PendingCopy> copies_;
};

// CTAs first .. last - 1 of a launch, in the order of x, then y, then z. Others may run at the same time.
template <class Kernel>
void Emulate(const char* name, Grid grid, const typename Kernel::Args& args, int64_t first, int64_t last) {
  static_assert(Kernel::kThreads % 32 == 0 && Kernel::kThreads <= CtaEmulator::kMaxThreads);
  static thread_local CtaEmulator emulator;
  struct Launch {
    typename Kernel::Shared shared;
    const typename Kernel::Args* args;
  };
  // Not on the stack: it may be large.
  const auto launch = std::make_unique<Launch>();
  launch->args = &args;
  for (int64_t i = first; i < last; ++i) {
    launch->shared = typename Kernel::Shared();  // of unknown content
    const Grid index = {static_cast<int>(i % grid.x), static_cast<int>(i / grid.x % grid.y),
                        static_cast<int>(i / grid.x / grid.y)};
    emulator.Run(
        name, Kernel::kThreads, index, grid,
        [](HostCta& cta, void* context) {
          auto* of = static_cast<Launch*>(context);
          Kernel::Run(cta, of->shared, *of->args);
        },
        launch.get());
  }
}

template <class Kernel>
void Emulate(const char* name, Grid grid, const typename Kernel::Args& args) {
  Emulate<Kernel>(name, grid, args, 0, static_cast<int64_t>(grid.x) * grid.y * grid.z);
}

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_EMULATOR_H_
