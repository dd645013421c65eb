// A product of activations and a weight matrix by oneDNN, beside which kernels_bench measures ours: with
// TIDEPOOL_ONEDNN.
#ifndef TIDEPOOL_BENCH_ONEDNN_PRODUCT_H_
#define TIDEPOOL_BENCH_ONEDNN_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace tidepool {

class OneDnnProduct {
 public:
  enum class Type { kFloat, kInt8 };  // int8: of both; sums are int32, what scales they would have is not applied

  // out [count][rows] = x [count][columns] * w [rows][columns]^T, all of ones. The weights, which the library packs as
  // it likes, are there as often as comes to `bytes`. Threads: OMP_NUM_THREADS.
  OneDnnProduct(Type type, int64_t rows, int64_t columns, int64_t count, size_t bytes);
  ~OneDnnProduct();
  // With the next copy of the weights.
  void Run();
  // The library's name of what runs, such as brg:avx512_core_vnni.
  const char* implementation() const;

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BENCH_ONEDNN_PRODUCT_H_
