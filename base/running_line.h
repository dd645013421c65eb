// A straight line through what was measured lately, as y = fixed + slope * x: what reading some bytes takes, or what a
// token takes at a depth. Newer measurements count more. One that is far off is put aside: when the next is off in the
// same way, things have changed, and the line begins anew with these two; else it was a pause of the machine. Not
// thread-safe.
#ifndef TIDEPOOL_BASE_RUNNING_LINE_H_
#define TIDEPOOL_BASE_RUNNING_LINE_H_

#include <cstdint>

namespace tidepool {

class RunningLine {
 public:
  // Through which way it goes while all x are much the same: through the origin, or level.
  enum class Alone : uint8_t { kThroughOrigin, kLevel };

  static constexpr double kKeep = 0.9;  // what an older measurement counts after each newer one
  static constexpr double kFarOff = 4;  // times as much as expected, or as little
  static constexpr int kLeastSeen = 2;

  explicit RunningLine(Alone alone) : alone_(alone) {}

  // x and y are not negative.
  void Observe(double x, double y);
  void Forget();
  bool known() const { return seen_ >= kLeastSeen; }

  // Both are 0 or more; 0 where nothing was seen.
  double fixed() const { return Fit().fixed; }
  double slope() const { return Fit().slope; }
  double At(double x) const;

 private:
  struct Line {
    double fixed = 0, slope = 0;
  };
  void Add(double x, double y);
  Line Fit() const;

  Alone alone_;
  int64_t seen_ = 0;                                     // since it began
  double weight_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;  // faded sums
  int aside_ = 0;  // 1: a measurement far above is put aside, -1: one far below; 0: none
  double aside_x_ = 0, aside_y_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_RUNNING_LINE_H_
