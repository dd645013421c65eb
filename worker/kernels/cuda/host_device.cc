#include "worker/kernels/cuda/host_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/kernels/cuda/emulator.h"

namespace tidepool::cuda {
namespace {

size_t OsPage() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

using EmulateFunction = void (*)(Grid grid, const void* args, ThreadTeam& team);

template <class Kernel>
void EmulateGrid(Grid grid, const void* args, ThreadTeam& team) {
  const int64_t ctas = int64_t{grid.x} * grid.y * grid.z;
  team.ForEach(ctas, std::max<int64_t>(1, ctas / (8 * team.size())), [&](int64_t first, int64_t last) {
    Emulate<Kernel>(__PRETTY_FUNCTION__, grid, *static_cast<const typename Kernel::Args*>(args), first, last);
  });
}

struct EmulatedKernel {
  EmulateFunction run;
  size_t args_bytes;
};

template <class... Kernels>
std::vector<EmulatedKernel> Table(KernelList<Kernels...>) {
  return {{EmulateGrid<Kernels>, sizeof(typename Kernels::Args)}...};
}

class HostDevice final : public Device {
 public:
  HostDevice(int threads, uint32_t seed) : team_(threads), kernels_(Table(AllKernels())), random_(seed) {}
  ~HostDevice() override {
    for (const auto& [memory, range] : ranges_) munmap(range.base, range.bytes);
  }

  DeviceFacts facts() const override { return {"emulated", 2, 90, size_t{1} << 34, size_t{1} << 34}; }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    const size_t rounded = (bytes + 15) / 16 * 16;  // 16-byte loads of the last elements are within the allocation
    Range range;
    range.bytes = (rounded + OsPage() - 1) / OsPage() * OsPage() + OsPage();
    range.base = mmap(nullptr, range.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range.base == MAP_FAILED) return absl::ResourceExhaustedError("emulated device memory");
    char* guard = static_cast<char*>(range.base) + range.bytes - OsPage();
    TIDEPOOL_CHECK(mprotect(guard, OsPage(), PROT_NONE) == 0);
    char* memory = guard - rounded;
    if (bytes <= kPoisonBytes) std::memset(memory, 0xff, bytes);  // NaN as float and half
    ranges_[memory] = range;
    return memory;
  }
  void Free(void* memory) override {
    if (memory == nullptr) return;
    Synchronize();
    SynchronizeAside();
    const auto at = ranges_.find(memory);
    TIDEPOOL_CHECK(at != ranges_.end());
    munmap(at->second.base, at->second.bytes);
    ranges_.erase(at);
  }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override { return Allocate(bytes); }
  void FreePinned(void* memory) override { Free(memory); }

  void CopyToDevice(void* to, const void* from, size_t bytes) override {
    Ask([=] { std::memcpy(to, from, bytes); });
  }
  void CopyToHost(void* to, const void* from, size_t bytes) override {
    Ask([=] { std::memcpy(to, from, bytes); });
  }
  void Clear(void* memory, size_t bytes) override {
    Ask([=] { std::memset(memory, 0, bytes); });
  }
  void LaunchKernel(int kernel, Grid grid, const void* args) override {
    const EmulatedKernel& of = kernels_[kernel];
    std::vector<char> copy(static_cast<const char*>(args), static_cast<const char*>(args) + of.args_bytes);
    Ask([this, &of, grid, copy = std::move(copy)] { of.run(grid, copy.data(), team_); });
  }
  void Multiply(const Product& product) override {
    Ask([this, product] { Run(product); });
  }
  void Synchronize() override {
    while (!queue_.empty()) RunNext();
  }

  void CopyToDeviceAside(void* to, const void* from, size_t bytes) override {
    aside_.push_back({asked_, [=] { std::memcpy(to, from, bytes); }});
    ++aside_asked_;
  }
  void CopyToHostAside(void* to, const void* from, size_t bytes) override { CopyToDeviceAside(to, from, bytes); }
  void JoinAside() override {
    Ask([this, count = aside_asked_] {
      while (aside_done_ < count) RunNextAside();
    });
  }
  void SynchronizeAside() override {
    while (!aside_.empty()) {
      while (!aside_.empty() && done_ < aside_.front().after) RunNext();
      if (!aside_.empty()) RunNextAside();
    }
  }

 private:
  static constexpr size_t kPoisonBytes = size_t{80} << 20;
  struct Range {
    void* base = nullptr;
    size_t bytes = 0;
  };

  struct Aside {
    int64_t after;  // so many of the others are done
    std::function<void()> copy;
  };

  void Ask(std::function<void()> work) {
    queue_.push_back(std::move(work));
    ++asked_;
  }
  void RunNext() {
    const std::function<void()> next = std::move(queue_.front());
    queue_.pop_front();
    next();
    ++done_;
    // Copies aside come at any time from when they may; often only when they are waited for.
    while (!aside_.empty() && aside_.front().after <= done_ && random_() % 8 == 0) RunNextAside();
  }
  void RunNextAside() {
    const std::function<void()> copy = std::move(aside_.front().copy);
    aside_.pop_front();
    ++aside_done_;
    copy();
  }

  static float Element(const void* data, bool half, int64_t at) {
    return half ? HalfToFloat(static_cast<const uint16_t*>(data)[at]) : static_cast<const float*>(data)[at];
  }

  void Run(const Product& p) {
    // Both sides as float32 rows.
    std::vector<float> a(static_cast<size_t>(p.m) * p.k);
    for (size_t i = 0; i < a.size(); ++i) a[i] = Element(p.a, p.halves, static_cast<int64_t>(i));
    team_.ForEach(p.n, 16, [&](int64_t first, int64_t last) {
      std::vector<float> w(p.k);
      for (int64_t n = first; n < last; ++n) {
        for (int k = 0; k < p.k; ++k) w[k] = Element(p.w, p.halves, n * p.k + k);
        for (int i = 0; i < p.m; ++i) {
          const float* row = a.data() + static_cast<size_t>(i) * p.k;
          float lanes[16] = {};
          int k = 0;
          for (; k + 16 <= p.k; k += 16) {
            for (int l = 0; l < 16; ++l) lanes[l] += row[k + l] * w[k + l];
          }
          float sum = 0;
          for (float lane : lanes) sum += lane;
          for (; k < p.k; ++k) sum += row[k] * w[k];
          float& out = p.out[int64_t{i} * p.n + n];
          out = p.add ? out + sum : sum;
        }
      }
    });
  }

  ThreadTeam team_;
  const std::vector<EmulatedKernel> kernels_;
  std::deque<std::function<void()>> queue_;
  std::deque<Aside> aside_;
  int64_t asked_ = 0, done_ = 0, aside_asked_ = 0, aside_done_ = 0;
  std::mt19937 random_;
  std::unordered_map<void*, Range> ranges_;
};

}  // namespace

std::unique_ptr<Device> MakeHostDevice(int threads, uint32_t seed) {
  return std::make_unique<HostDevice>(threads, seed);
}

}  // namespace tidepool::cuda
