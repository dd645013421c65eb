#include "worker/kernels/cuda/emulator.h"

#include <cstdio>
#include <cstdlib>

#include "base/check.h"

namespace tidepool::cuda {
namespace {

constexpr int kWarp = 32;

thread_local CtaEmulator* running_emulator = nullptr;

template <class Of>
void CombinePair(float* __restrict a, float* __restrict b, int count, Of of) {
  int i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int k = 0; k < 4; ++k) a[i + k] = b[i + k] = of(a[i + k], b[i + k]);
  }
  for (; i < count; ++i) a[i] = b[i] = of(a[i], b[i]);
}

}  // namespace

void KernelFault(const char* what, int64_t index, int other_thread) {
  const EmulatedThread& me = current_thread;
  std::fprintf(stderr, "kernel fault: %s, thread %d %s", me.kernel, me.thread, what);
  if (other_thread >= 0) std::fprintf(stderr, " thread %d", other_thread);
  if (other_thread == -2) std::fprintf(stderr, " several threads");
  if (index >= 0 || other_thread == -1) std::fprintf(stderr, " (element %lld)", static_cast<long long>(index));
  std::fprintf(stderr, "\n");
  std::fflush(stderr);
  std::abort();
}

CtaEmulator::CtaEmulator() = default;
CtaEmulator::~CtaEmulator() = default;

void CtaEmulator::ThreadMain(void*) {
  CtaEmulator& emulator = *running_emulator;
  HostCta cta(&emulator, emulator.running_);
  emulator.body_(cta, emulator.context_);
}

void CtaEmulator::Run(const char* kernel, int threads, Grid index, Grid grid, Body body, void* context) {
  TIDEPOOL_CHECK(threads % kWarp == 0 && threads <= kMaxThreads);
  while (static_cast<int>(lanes_.size()) < threads) lanes_.push_back(std::make_unique<Lane>());
  threads_ = threads;
  index_ = index;
  grid_ = grid;
  body_ = body;
  context_ = context;
  running_emulator = this;
  current_thread.kernel = kernel;
  current_thread.epoch = 1;
  for (int i = 0; i < threads; ++i) {
    lanes_[i]->wait = Wait::kNone;
    lanes_[i]->fiber.Start(ThreadMain, nullptr);
  }
  for (;;) {
    for (int warp = 0; warp < threads / kWarp; ++warp) RunWarp(warp);
    const auto done = std::count_if(lanes_.begin(), lanes_.begin() + threads,
                                    [](const auto& lane) { return lane->wait == Wait::kDone; });
    if (done == threads) return;
    if (done > 0) KernelFault("is left at a barrier by threads that have ended", done, -2);
    for (int i = 0; i < threads; ++i) lanes_[i]->wait = Wait::kNone;
    ++current_thread.epoch;
  }
}

void CtaEmulator::RunWarp(int warp) {
  for (;;) {
    int at_warp = 0, elsewhere = 0;
    for (int i = warp * kWarp; i < (warp + 1) * kWarp; ++i) {
      Lane& lane = *lanes_[i];
      if (lane.wait == Wait::kNone) {
        running_ = i;
        current_thread.thread = i;
        lane.fiber.Resume();
        if (lane.fiber.done()) lane.wait = Wait::kDone;
      }
      (lane.wait == Wait::kWarp ? at_warp : elsewhere) += 1;
    }
    if (at_warp == 0) return;
    if (elsewhere > 0) KernelFault("is at a warp operation, but not all of its warp are", elsewhere, -2);
    Combine(warp);
  }
}

void CtaEmulator::Combine(int warp) {
  const Lane& first = *lanes_[warp * kWarp];
  for (int i = 0; i < kWarp; ++i) {
    Lane& lane = *lanes_[warp * kWarp + i];
    if (lane.op != first.op || lane.first_mask != first.first_mask || lane.last_mask != first.last_mask ||
        lane.count != first.count) {
      KernelFault("is at another warp operation than the rest of its warp", i, -2);
    }
    lane.wait = Wait::kNone;
  }
  if (first.op == WarpOp::kMultiplyHalves) return MultiplyHalves(warp);
  // A butterfly, as on the device: the same bits, as both lanes of a pair get the same.
  for (int mask = first.first_mask; mask >= first.last_mask && mask > 0; mask /= 2) {
    for (int i = 0; i < kWarp; ++i) {
      if ((i & mask) != 0) continue;
      float* a = lanes_[warp * kWarp + i]->values;
      float* b = lanes_[warp * kWarp + (i | mask)]->values;
      first.op == WarpOp::kSum ? CombinePair(a, b, first.count, [](float x, float y) { return x + y; })
                               : CombinePair(a, b, first.count, [](float x, float y) { return std::fmax(x, y); });
    }
  }
}

void CtaEmulator::MultiplyHalves(int warp) {
  float a[16][16], b[16][8];  // [row][k], [k][column]
  for (int i = 0; i < kWarp; ++i) {
    const Lane& lane = *lanes_[warp * kWarp + i];
    const int row = i / 4, k = 2 * (i % 4);
    for (int word = 0; word < 4; ++word) HalvesToFloats(lane.a[word], &a[row + word % 2 * 8][k + word / 2 * 8]);
    for (int word = 0; word < 2; ++word) {
      float both[2];
      HalvesToFloats(lane.b[word], both);
      b[k + word * 8][row] = both[0];
      b[k + word * 8 + 1][row] = both[1];
    }
  }
  for (int row = 0; row < 16; ++row) {
    float sums[8] = {};
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) sums[column] += a[row][k] * b[k][column];
    }
    for (int column = 0; column < 8; ++column) {
      lanes_[warp * kWarp + 4 * (row % 8) + column / 2]->c[column % 2 + row / 8 * 2] += sums[column];
    }
  }
}

void CtaEmulator::GiveWay(Wait wait) {
  Lane& lane = *lanes_[running_];
  lane.wait = wait;
  lane.fiber.Yield();
}

void CtaEmulator::WaitForBarrier() { GiveWay(Wait::kBarrier); }

void CtaEmulator::WaitForWarp(WarpOp op, int first_mask, int last_mask, float* values, int count) {
  Lane& lane = *lanes_[running_];
  lane.op = op;
  lane.first_mask = first_mask;
  lane.last_mask = last_mask;
  lane.values = values;
  lane.count = count;
  GiveWay(Wait::kWarp);
}

void CtaEmulator::WaitForProduct(const uint32_t* a, const uint32_t* b, float* c) {
  Lane& lane = *lanes_[running_];
  lane.op = WarpOp::kMultiplyHalves;
  lane.first_mask = lane.last_mask = lane.count = 0;
  lane.a = a;
  lane.b = b;
  lane.c = c;
  GiveWay(Wait::kWarp);
}

}  // namespace tidepool::cuda
