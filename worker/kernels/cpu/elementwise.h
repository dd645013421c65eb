// Element-wise steps of a transformer layer on float32 rows. All run on the calling thread; callers split the rows.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_H_

#include <cstdint>

namespace tidepool {

// out[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]; out may be x.
void RmsNorm(const float* x, const float* weight, float epsilon, int64_t size, float* out);

// cos and sin of one position: [pairs] each, pairs = rope_dims / 2. Computed in double, so positions far out stay
// exact.
void RopeTable(const float* frequencies, int pairs, float magnitude, int64_t position, float* cosine, float* sine);
// Rotates the first 2*pairs elements of `head` in place: neighbours (2i, 2i+1), or halves (i, i+pairs) when neox.
void RopeRotate(float* head, const float* cosine, const float* sine, int pairs, bool neox);

// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]
void SiluMultiply(float* gate, const float* up, int64_t size);
// x[i] += y[i]
void AddInPlace(float* x, const float* y, int64_t size);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_H_
