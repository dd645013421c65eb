// Shared memory as the emulator sees it: every access is checked. An element read before it was written, an index out
// of range, and two threads that touch an element without a barrier between, one of them writing, end the process.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_SHARED_ARRAY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_SHARED_ARRAY_H_

#include <cstdint>

namespace tidepool::cuda {

// Which thread runs, and how many barriers its CTA has passed.
struct EmulatedThread {
  int thread = 0;
  uint32_t epoch = 0;
  const char* kernel = "";
};
inline thread_local EmulatedThread current_thread;

// Ends the process with the kernel, the thread and what is wrong.
[[noreturn]] void KernelFault(const char* what, int64_t index, int other_thread);

struct SharedShadow {
  int32_t writer = -1;
  uint32_t write_epoch = 0;
  int32_t reader = -1;  // -2: several
  uint32_t read_epoch = 0;

  void Read(int64_t index) {
    const EmulatedThread& me = current_thread;
    if (writer < 0) KernelFault("reads shared memory that nobody has written", index, -1);
    if (writer != me.thread && write_epoch == me.epoch)
      KernelFault("reads, no barrier since the write of", index, writer);
    if (read_epoch != me.epoch || reader == -1) {
      reader = me.thread;
      read_epoch = me.epoch;
    } else if (reader != me.thread) {
      reader = -2;
    }
  }
  void Write(int64_t index) {
    const EmulatedThread& me = current_thread;
    if (writer >= 0 && writer != me.thread && write_epoch == me.epoch) {
      KernelFault("writes, no barrier since the write of", index, writer);
    }
    if (reader != -1 && reader != me.thread && read_epoch == me.epoch) {
      KernelFault("writes, no barrier since the read of", index, reader);
    }
    writer = me.thread;
    write_epoch = me.epoch;
  }
};

template <class T, int kCount>
class SharedArray {
 public:
  class Element {
   public:
    Element(SharedArray* array, int64_t index) : array_(array), index_(index) {}
    operator T() const {  // NOLINT: stands for a T
      array_->shadow_[index_].Read(index_);
      return array_->values_[index_];
    }
    Element& operator=(const T& value) {
      array_->shadow_[index_].Write(index_);
      array_->values_[index_] = value;
      return *this;
    }
    Element& operator=(const Element& other) { return *this = static_cast<T>(other); }
    Element& operator+=(const T& value) { return *this = static_cast<T>(*this) + value; }

   private:
    SharedArray* const array_;
    const int64_t index_;
  };
  Element operator[](int64_t index) {
    if (index < 0 || index >= kCount) KernelFault("uses an index outside its shared array:", index, -1);
    return Element(this, index);
  }

 private:
  T values_[kCount];
  SharedShadow shadow_[kCount];
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_SHARED_ARRAY_H_
