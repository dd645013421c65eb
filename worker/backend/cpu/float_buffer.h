// Floats for a step, 64-byte aligned, that keep their memory from step to step.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_FLOAT_BUFFER_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_FLOAT_BUFFER_H_

#include <cstddef>
#include <new>

namespace tidepool {

class FloatBuffer {
 public:
  FloatBuffer() = default;
  ~FloatBuffer() { Free(); }
  FloatBuffer(const FloatBuffer&) = delete;
  FloatBuffer& operator=(const FloatBuffer&) = delete;

  // Room for so many. What was there is lost when it grows.
  float* Floats(size_t count) {
    if (count * sizeof(float) > bytes_) {
      Free();
      bytes_ = count * sizeof(float) * 5 / 4;
      data_ = ::operator new(bytes_, kAlignment);
    }
    return static_cast<float*>(data_);
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  void Free() {
    if (data_ != nullptr) ::operator delete(data_, kAlignment);
  }

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_FLOAT_BUFFER_H_
