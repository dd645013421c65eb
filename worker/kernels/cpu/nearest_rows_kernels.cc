// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/highway.h"
#include "worker/kernels/cpu/nearest_rows.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kNearestBlock>;
using V = hn::Vec<D>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
constexpr int kParts = kNearestBlock / kLanes;
constexpr int kTogether = 8 / kParts;  // vectors that share one load of the rows, as many as there are registers for

// Products of kVectors vectors with the rows of a block: to[vector][kNearestBlock]. Product and sum are rounded apart,
// as the policy's own code does.
template <int kVectors>
HWY_INLINE void BlockProducts(const float* block, int dim, const float* vectors, float* to) {
  const D d;
  V sum[kVectors][kParts];
  for (int j = 0; j < kVectors; ++j) {
    for (int part = 0; part < kParts; ++part) sum[j][part] = hn::Zero(d);
  }
  for (int c = 0; c < dim; ++c) {
    V rows[kParts];
    for (int part = 0; part < kParts; ++part) rows[part] = hn::LoadU(d, block + c * kNearestBlock + part * kLanes);
    for (int j = 0; j < kVectors; ++j) {
      const V x = hn::Set(d, vectors[j * dim + c]);
      for (int part = 0; part < kParts; ++part) sum[j][part] = hn::Add(sum[j][part], hn::Mul(x, rows[part]));
    }
  }
  for (int j = 0; j < kVectors; ++j) {
    for (int part = 0; part < kParts; ++part) hn::StoreU(sum[j][part], d, to + j * kNearestBlock + part * kLanes);
  }
}

void Find(const NearestRowsTask& task) {
  const D d;
  HWY_ALIGN float products[kTogether * kNearestBlock];
  for (int32_t first = 0; first < task.count; first += kNearestBlock) {
    const float* block = task.rows + static_cast<int64_t>(first) * task.dim;
    const int rows = task.count - first < kNearestBlock ? task.count - first : kNearestBlock;
    for (int32_t i = 0; i < task.vector_count;) {
      const float* vectors = task.vectors + static_cast<int64_t>(i) * task.dim;
      const bool all = i + kTogether <= task.vector_count;
      if (all) {
        BlockProducts<kTogether>(block, task.dim, vectors, products);
      } else {
        BlockProducts<1>(block, task.dim, vectors, products);
      }
      for (int j = 0; j < (all ? kTogether : 1); ++j, ++i) {
        const float* of_vector = products + j * kNearestBlock;
        if (first > 0 && rows == kNearestBlock) {  // most blocks have nothing better
          bool better = false;
          for (int part = 0; part < kNearestBlock; part += kLanes) {
            better = better || !hn::AllFalse(d, hn::Gt(hn::Load(d, of_vector + part), hn::Set(d, task.best[i])));
          }
          if (!better) continue;
        }
        for (int k = 0; k < rows; ++k) {
          if (first + k > 0 && !(of_vector[k] > task.best[i])) continue;
          task.best[i] = of_vector[k];
          task.row[i] = first + k;
        }
      }
    }
  }
}

}  // namespace

extern const NearestRowsKernels kNearestRowsKernels;
const NearestRowsKernels kNearestRowsKernels = {Find};

}  // namespace tidepool::TIDEPOOL_ISA
