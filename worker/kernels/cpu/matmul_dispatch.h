// MatMul with the kernels of a named instruction set, for matmul.cc, tests and benchmarks.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DISPATCH_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DISPATCH_H_

#include "absl/types/span.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/matmul_kernels.h"

namespace tidepool {

// `isa` must be one of SupportedIsas().
const MatMulKernels& MatMulKernelsOf(Isa isa);
// As MatMul.
void MatMulWith(const MatMulKernels& kernels, absl::Span<const MatMulTask> tasks, const Activations& x,
                ThreadTeam& team);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DISPATCH_H_
