// A stack of its own for a function that gives way in the middle: the threads of an emulated CTA.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_FIBER_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_FIBER_H_

#include <cstddef>

namespace tidepool::cuda {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // body(argument) begins at the next Resume. Only when there is none under way.
  void Start(void (*body)(void*), void* argument);
  // Runs it until it gives way or ends.
  void Resume();
  bool done() const { return done_; }
  // Called by the body: back to Resume.
  void Yield();

  // Where a new stack begins.
  void Main();

 private:
  char* const stack_;
  void* fiber_context_ = nullptr;  // stack pointer, or ucontext
  void* caller_context_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool done_ = true;
  // For AddressSanitizer.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_size_ = 0;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_FIBER_H_
