#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {
namespace {

constexpr int kLeastCapability = 80;

[[noreturn]] void DeviceFault(const char* what, const char* why) {
  std::fprintf(stderr, "cuda: %s: %s\n", what, why);
  std::fflush(stderr);
  std::abort();
}

void Check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) DeviceFault(what, cudaGetErrorString(error));
}

void Check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) DeviceFault(what, cublasGetStatusString(status));
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    Use();
    int major = 0;
    Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), "the compute capability");
    early_ = major >= 9;
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream");
    Check(cudaStreamCreateWithFlags(&aside_, cudaStreamNonBlocking), "a stream");
    Check(cudaEventCreateWithFlags(&asked_, cudaEventDisableTiming), "an event");
    Check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "an event");
    Check(cublasCreate(&cublas_), "cuBLAS");
    Check(cublasSetStream(cublas_, stream_), "cuBLAS's stream");
    for (const LaunchTable& table : {RowLaunches(), AttendLaunches(), AttendPackedLaunches(), PrefillLaunches(),
                                     FloatMatVecLaunches(), NibbleMatVecLaunches(), ByteMatVecLaunches()}) {
      launches_.insert(launches_.end(), table.launches, table.launches + table.count);
    }
  }
  ~CudaDevice() override {
    Use();
    if (profiling_) PrintProfile();
    cublasDestroy(cublas_);
    cudaEventDestroy(copied_);
    cudaEventDestroy(asked_);
    cudaStreamDestroy(aside_);
    cudaStreamDestroy(stream_);
  }

  DeviceFacts facts() const override {
    Use();
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, ordinal_), "the device's properties");
    DeviceFacts facts;
    facts.name = properties.name;
    facts.multiprocessors = properties.multiProcessorCount;
    facts.compute_capability = properties.major * 10 + properties.minor;
    Check(cudaMemGetInfo(&facts.free_bytes, &facts.total_bytes), "the device's memory");
    return facts;
  }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    Use();
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes);
    if (error == cudaSuccess) return memory;
    cudaGetLastError();
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return absl::ResourceExhaustedError(
        absl::StrCat("device memory: ", bytes, " bytes are wanted, ", free, " are free: ", cudaGetErrorString(error)));
  }
  void Free(void* memory) override {
    Use();
    Check(cudaFree(memory), "to free device memory");
  }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override {
    Use();
    void* memory = nullptr;
    const cudaError_t error = cudaMallocHost(&memory, bytes);
    if (error == cudaSuccess) return memory;
    cudaGetLastError();
    return absl::ResourceExhaustedError(
        absl::StrCat("pinned host memory: ", bytes, " bytes: ", cudaGetErrorString(error)));
  }
  void FreePinned(void* memory) override {
    Use();
    Check(cudaFreeHost(memory), "to free pinned memory");
  }

  void CopyToDevice(void* to, const void* from, size_t bytes) override {
    Use();
    Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "a copy to the device");
  }
  void CopyToHost(void* to, const void* from, size_t bytes) override {
    Use();
    Check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "a copy to the host");
  }
  void Clear(void* memory, size_t bytes) override {
    Use();
    Check(cudaMemsetAsync(memory, 0, bytes, stream_), "to clear device memory");
  }
  void LaunchKernel(int kernel, Grid grid, const void* args) override {
    Use();
    Timed(kernel, [&] { Check(launches_[kernel](stream_, grid, early_, args), "a kernel launch"); });
  }
  void Multiply(const Product& p) override {
    Use();
    // Row-major matrices are the library's transposed ones: out^T = w^T a^T.
    const cudaDataType type = p.halves ? CUDA_R_16F : CUDA_R_32F;
    Timed(kProduct, [&] {
      const float alpha = 1, beta = p.add ? 1.0f : 0.0f;
      Check(cublasGemmEx(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, p.n, p.m, p.k, &alpha, p.w, type, p.k, p.a, type, p.k,
                         &beta, p.out, CUDA_R_32F, p.n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            "a matrix product");
    });
  }
  void Synchronize() override {
    Use();
    Check(cudaStreamSynchronize(stream_), "the device's work");
    if (profiling_) TakeSpans();
  }

  void CopyToDeviceAside(void* to, const void* from, size_t bytes) override {
    CopyAside(to, from, bytes, cudaMemcpyHostToDevice);
  }
  void CopyToHostAside(void* to, const void* from, size_t bytes) override {
    CopyAside(to, from, bytes, cudaMemcpyDeviceToHost);
  }
  void JoinAside() override {
    Use();
    Check(cudaEventRecord(copied_, aside_), "an event");
    Check(cudaStreamWaitEvent(stream_, copied_), "to wait for copies");
  }
  void SynchronizeAside() override {
    Use();
    Check(cudaStreamSynchronize(aside_), "the device's copies");
  }

 private:
  void CopyAside(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    Use();
    Check(cudaEventRecord(asked_, stream_), "an event");
    Check(cudaStreamWaitEvent(aside_, asked_), "a copy to wait for the device's work");
    Check(cudaMemcpyAsync(to, from, bytes, kind, aside_), "a copy aside");
  }
  // The device of a thread's calls is the thread's.
  void Use() const {
    static thread_local int used = -1;
    if (used == ordinal_) return;
    Check(cudaSetDevice(ordinal_), "to select the device");
    used = ordinal_;
  }

  // Times what `launch` puts on the stream, where TIDEPOOL_CUDA_PROFILE asks for it: see PrintProfile.
  template <class Work>
  void Timed(int kernel, Work&& launch) {
    if (!profiling_) return launch();
    Span span{kernel};
    Check(cudaEventCreate(&span.begin), "an event");
    Check(cudaEventCreate(&span.end), "an event");
    Check(cudaEventRecord(span.begin, stream_), "an event");
    launch();
    Check(cudaEventRecord(span.end, stream_), "an event");
    spans_.push_back(span);
  }
  void TakeSpans() {
    for (const Span& span : spans_) {
      float milliseconds = 0;
      Check(cudaEventElapsedTime(&milliseconds, span.begin, span.end), "an event's time");
      Total& total = totals_[span.kernel];
      ++total.launches;
      total.milliseconds += milliseconds;
      cudaEventDestroy(span.begin);
      cudaEventDestroy(span.end);
    }
    spans_.clear();
  }
  void PrintProfile() const {
    double all = 0;
    for (const auto& [kernel, total] : totals_) all += total.milliseconds;
    for (const auto& [kernel, total] : totals_) {
      std::fprintf(stderr, "%9.2f ms %5.1f %% %8lld launches %8.2f us each  %s\n", total.milliseconds,
                   100 * total.milliseconds / all, total.launches, 1e3 * total.milliseconds / total.launches,
                   kernel == kProduct ? "matrix product of the library" : KernelName(kernel).c_str());
    }
  }

  bool early_ = false;  // launches may overlap
  static constexpr int kProduct = -1;
  struct Span {
    int kernel;
    cudaEvent_t begin = nullptr, end = nullptr;
  };
  struct Total {
    long long launches = 0;
    double milliseconds = 0;
  };
  const bool profiling_ = std::getenv("TIDEPOOL_CUDA_PROFILE") != nullptr;
  std::vector<Span> spans_;
  std::map<int, Total> totals_;

  const int ordinal_;
  cudaStream_t stream_ = nullptr, aside_ = nullptr;
  cudaEvent_t asked_ = nullptr, copied_ = nullptr;  // on them; waiting for one is for its last record by then
  cublasHandle_t cublas_ = nullptr;
  std::vector<LaunchFunction> launches_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal) {
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return absl::NotFoundError(absl::StrCat("no CUDA device: ", cudaGetErrorString(error)));
  }
  if (ordinal < 0 || ordinal >= count) {
    return absl::NotFoundError(absl::StrCat("CUDA device ", ordinal, " is not in 0 to ", count - 1));
  }
  int major = 0, minor = 0;
  Check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal), "the compute capability");
  Check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal), "the compute capability");
  if (major * 10 + minor < kLeastCapability) {
    return absl::FailedPreconditionError(absl::StrCat("CUDA device ", ordinal, " is of compute capability ", major, ".",
                                                      minor, "; 8.0 or more is needed"));
  }
  return std::make_unique<CudaDevice>(ordinal);
}

}  // namespace tidepool::cuda
