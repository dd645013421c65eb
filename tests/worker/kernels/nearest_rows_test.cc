#include "worker/kernels/cpu/nearest_rows.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "policies/retain/merge.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

std::vector<const NearestRowsKernels*> AllKernels() {
  std::vector<const NearestRowsKernels*> kernels = {&cpu_baseline::kNearestRowsKernels};
#ifdef TIDEPOOL_ISA_X86
  if (ActiveIsa() >= Isa::kAvx2) kernels.push_back(&cpu_avx2::kNearestRowsKernels);
  if (ActiveIsa() >= Isa::kAvx512) kernels.push_back(&cpu_avx512::kNearestRowsKernels);
#endif
  return kernels;
}

// What D2O's own code finds, bit for bit, whatever the numbers of rows; the first of equal rows.
TEST(NearestRowsTest, EqualsTheMergeTargets) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const int dim : {16, 64, 80}) {
    for (const int kept : {1, 15, 16, 17, 50}) {
      for (const int evicted : {1, 7, 8, 9, 21}) {
        std::vector<float> keys((kept + evicted) * dim), values(keys.size());
        for (float& x : keys) x = normal(random);
        for (int c = 0; c < dim; ++c) keys[(kept - 1) * dim + c] = keys[c];  // equal to the first
        for (int c = 0; c < dim; ++c) keys[kept * dim + c] = keys[c];        // and what is evicted is most like them
        const float* gone = keys.data() + kept * dim;
        const std::vector<float> rows = UnitRowBlocks(keys.data(), kept, dim, kNearestBlock);
        const std::vector<float> vectors = UnitRows(gone, evicted, dim);
        for (const NearestRowsKernels* kernels : AllKernels()) {
          std::vector<float> best(evicted, -9);
          std::vector<int32_t> row(evicted, -9);
          kernels->find({.rows = rows.data(),
                         .count = kept,
                         .dim = dim,
                         .vectors = vectors.data(),
                         .vector_count = evicted,
                         .best = best.data(),
                         .row = row.data()});
          std::vector<float> merged_keys(keys.begin(), keys.begin() + kept * dim), merged_values = merged_keys;
          const MergeHead head = {merged_keys.data(), merged_values.data(), kept, gone, gone};
          MergeState state;
          const MergeResult expected = MergeEvicted({&head, 1}, evicted, dim, MergeOptions(), state);
          ASSERT_EQ(best, expected.similarity[0]);
          ASSERT_EQ(row, expected.target[0]);
          ASSERT_EQ(row[0], 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
