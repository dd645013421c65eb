// Which of the compiled instruction sets run on this machine, and which one is used.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ISA_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ISA_H_

#include <vector>

namespace tidepool {

enum class Isa { kBaseline, kAvx2, kAvx512 };  // kAvx512 includes VNNI, VBMI (Ice Lake, Zen 4 and later)

const char* IsaName(Isa isa);
// From the slowest to the fastest; kBaseline is always there.
std::vector<Isa> SupportedIsas();
// The fastest, or the one that the environment variable TIDEPOOL_ISA names (baseline, avx2, avx512) when it is
// supported.
Isa ActiveIsa();

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ISA_H_
