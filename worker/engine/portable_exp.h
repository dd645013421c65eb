// e^x from IEEE additions and multiplications only: the same bits on every machine and with every C library, so that
// equal seeds give equal draws everywhere. Branch-free: loops over it vectorise. A source that includes this is
// compiled with -ffp-contract=off (a fused multiply-add rounds differently).
#ifndef TIDEPOOL_WORKER_ENGINE_PORTABLE_EXP_H_
#define TIDEPOOL_WORKER_ENGINE_PORTABLE_EXP_H_

#include <bit>
#include <cstdint>

namespace tidepool {

// For x <= 0; relative error below 4e-16. 0 for x <= -708 (smaller than any normal double) and for NaN.
inline double PortableExp(double x) {
  // x = k ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^52 rounds to an integer and leaves k in the low bits.
  constexpr double kToInteger = 6755399441055744.0;
  const double shifted = x * 1.4426950408889634 + kToInteger;
  const double k = shifted - kToInteger;
  // ln 2 in two parts, the first with trailing zeros so that k times it is exact.
  const double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
  // Taylor series; the first term left out is r^14 / 14! < 5e-18.
  double sum = 1.0 / 6227020800;
  sum = sum * r + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const double power = std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) + 1023) << 52);  // 2^k
  const double value = sum * power;
  return x > -708 ? value : 0.0;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_PORTABLE_EXP_H_
