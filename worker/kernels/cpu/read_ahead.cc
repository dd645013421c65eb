#include "worker/kernels/cpu/read_ahead.h"

#include <algorithm>

namespace tidepool {

const char* ReadAhead::Next(int32_t& count) {
  if (run == end) return nullptr;
  count = std::min(count, run->lines - asked);
  const char* at = run->at + int64_t{asked} * kLine;
  asked += count;
  lead += count;
  if (asked == run->lines) {
    ++run;
    asked = 0;
  }
  return at;
}

const char* ReadAhead::Take(int32_t count) {
  lead -= count;
  if (lead >= most) return nullptr;
  int32_t taken = count;
  const char* at = Next(taken);
  if (at == nullptr) return nullptr;
  const int32_t left = count - taken;  // a run's last lines: others of it are asked for again, and the next run's
  for (int32_t more = left + std::clamp(most - lead - left, 0, count); more > 0;) {
    int32_t now = more;
    const char* extra = Next(now);
    if (extra == nullptr) break;
    for (int32_t i = 0; i < now; ++i) __builtin_prefetch(extra + int64_t{i} * kLine, 0, 2);
    more -= now;
  }
  return at - int64_t{left} * kLine;
}

}  // namespace tidepool
