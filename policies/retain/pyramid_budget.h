// PyramidKV's layer budgets (arXiv 2406.02069; policies.md section 4.2): many past rows in the first layer, fewer in
// each later one, by a constant step. Lower layers spread their attention, upper ones gather it on few tokens.
//
//   b = capacity - window, lo = b / beta, hi = 2 b - lo, step = (hi - lo) / (layers - 1), layer l: hi - l * step
//
// in whole numbers, as in the official code. The step is cut to a whole number, so the layers hold a few per cent more
// than layers * b in all (capacity 128, window 8, 32 layers: 4016 against 3840).
#ifndef TIDEPOOL_POLICIES_RETAIN_PYRAMID_BUDGET_H_
#define TIDEPOOL_POLICIES_RETAIN_PYRAMID_BUDGET_H_

#include <optional>
#include <vector>

namespace tidepool {

struct PyramidInput {
  int layers = 0;    // >= 1
  int tokens = 0;    // of the prompt
  int capacity = 0;  // rows per head on average, window included; > window
  int window = 0;
  int beta = 20;  // >= 1
};

// kFactory: PyramidKV's code, with equal layers while tokens < 2 b. kAda: Ada-KV's code, without them (its schedule is
// made anew for each prompt here, there it is that of the first).
enum class PyramidSchedule { kFactory, kAda };

// Past rows (the window comes on top) of each layer; none when the prompt fits and everything stays.
std::optional<std::vector<int>> PyramidPastRows(PyramidSchedule schedule, const PyramidInput& input);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_PYRAMID_BUDGET_H_
