// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "worker/kernels/cpu/elementwise_kernels.h"

#include <cmath>

#include "hwy/highway.h"
#include "worker/kernels/cpu/exponential.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kLanes = 16;  // sums run in 16 lanes on every instruction set, so that they agree
using D = hn::CappedTag<float, kLanes>;
using V = hn::Vec<D>;

void RmsNormImpl(const float* x, const float* weight, float epsilon, int64_t size, float* out) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  HWY_ALIGN float partial[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int part = 0; part < kLanes; part += lanes) {
      const V v = hn::LoadU(d, x + i + part);
      hn::Store(hn::Add(hn::Load(d, partial + part), hn::Mul(v, v)), d, partial + part);
    }
  }
  double sum = 0;
  for (float p : partial) sum += p;
  for (; i < size; ++i) sum += double{x[i]} * x[i];
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(size) + epsilon));
  const V factor = hn::Set(d, scale);
  for (i = 0; i + lanes <= size; i += lanes) {
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + i), factor), hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < size; ++i) out[i] = x[i] * scale * weight[i];
}

void RopeRotateImpl(float* head, const float* cosine, const float* sine, int pairs, bool neox) {
  if (!neox) {
    for (int i = 0; i < pairs; ++i) {
      const float a = head[2 * i], b = head[2 * i + 1];
      head[2 * i] = a * cosine[i] - b * sine[i];
      head[2 * i + 1] = a * sine[i] + b * cosine[i];
    }
    return;
  }
  for (int i = 0; i < pairs; ++i) {
    const float a = head[i], b = head[i + pairs];
    head[i] = a * cosine[i] - b * sine[i];
    head[i + pairs] = a * sine[i] + b * cosine[i];
  }
}

V Silu(D d, V gate) {
  const V silu = hn::Div(gate, hn::Add(hn::Set(d, 1.0f), Exponential(d, hn::Neg(gate))));
  return hn::IfThenElse(hn::Lt(gate, hn::Set(d, -87.0f)), hn::Zero(d), silu);  // far out; not-a-number stays so
}

void SiluMultiplyImpl(float* gate, const float* up, int64_t size) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    hn::StoreU(hn::Mul(Silu(d, hn::LoadU(d, gate + i)), hn::LoadU(d, up + i)), d, gate + i);
  }
  if (i == size) return;
  HWY_ALIGN float rest[kLanes] = {};
  for (int64_t k = i; k < size; ++k) rest[k - i] = gate[k];
  hn::Store(Silu(d, hn::Load(d, rest)), d, rest);
  for (int64_t k = i; k < size; ++k) gate[k] = rest[k - i] * up[k];
}

void AddInPlaceImpl(float* x, const float* y, int64_t size) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= size; i += lanes) hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, x + i);
  for (; i < size; ++i) x[i] += y[i];
}

}  // namespace

extern const ElementwiseKernels kElementwiseKernels;
const ElementwiseKernels kElementwiseKernels = {RmsNormImpl, RopeRotateImpl, SiluMultiplyImpl, AddInPlaceImpl};

}  // namespace tidepool::TIDEPOOL_ISA
