// Memory for what is read from end to end at every step, on huge pages where the system gives them: fewer of them need
// be translated on the way. Nothing is given back before the end.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_HUGE_MEMORY_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_HUGE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidepool {

class HugeMemory {
 public:
  HugeMemory() = default;
  ~HugeMemory();
  HugeMemory(const HugeMemory&) = delete;
  HugeMemory& operator=(const HugeMemory&) = delete;

  // Zeros, aligned to 64 bytes.
  uint8_t* Take(size_t bytes);

 private:
  struct Range {
    void* base;
    size_t bytes;
  };
  std::vector<Range> ranges_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;  // from next_ on
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_HUGE_MEMORY_H_
