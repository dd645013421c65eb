// Queries for tests of kernels.
#ifndef TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_QUERIES_H_
#define TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_QUERIES_H_

#include <random>
#include <vector>

namespace tidepool {

// [count][head_dim], normally distributed.
inline std::vector<float> RandomQueries(int count, int head_dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> q(static_cast<size_t>(count) * head_dim);
  for (float& x : q) x = normal(random);
  return q;
}

}  // namespace tidepool

#endif  // TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_QUERIES_H_
