#include "worker/kernels/cpu/isa.h"

#include <cstdlib>
#include <cstring>

namespace tidepool {

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kBaseline: return "baseline";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
  }
  return "?";
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas = {Isa::kBaseline};
#ifdef TIDEPOOL_ISA_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    isas.push_back(Isa::kAvx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
        __builtin_cpu_supports("avx512bitalg") && __builtin_cpu_supports("avx512vpopcntdq") &&
        __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("gfni")) {
      isas.push_back(Isa::kAvx512);
    }
  }
#endif
  return isas;
}

Isa ActiveIsa() {
  static const Isa active = [] {
    const std::vector<Isa> isas = SupportedIsas();
    const char* wanted = std::getenv("TIDEPOOL_ISA");
    if (wanted != nullptr) {
      for (Isa isa : isas) {
        if (std::strcmp(wanted, IsaName(isa)) == 0) return isa;
      }
    }
    return isas.back();
  }();
  return active;
}

}  // namespace tidepool
