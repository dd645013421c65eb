#include "base/running_line.h"

#include <algorithm>

namespace tidepool {
namespace {

// What is assumed weighs so much beside one measurement, or beside their spread: it counts only where they say nothing.
constexpr double kAssumed = 0.01;

}  // namespace

void RunningLine::Observe(double x, double y) {
  if (known()) {
    const double expected = At(x);
    const int off = y > kFarOff * expected ? 1 : kFarOff * y < expected ? -1 : 0;
    if (off != 0 && aside_ != off) {
      aside_ = off;
      aside_x_ = x;
      aside_y_ = y;
      return;
    }
    if (off != 0) {
      const double first_x = aside_x_, first_y = aside_y_;
      Forget();
      Add(first_x, first_y);
    }
  }
  aside_ = 0;
  Add(x, y);
}

void RunningLine::Forget() { seen_ = aside_ = 0, weight_ = x_ = y_ = xx_ = xy_ = 0; }

void RunningLine::Add(double x, double y) {
  ++seen_;
  weight_ = kKeep * weight_ + 1;
  x_ = kKeep * x_ + x;
  y_ = kKeep * y_ + y;
  xx_ = kKeep * xx_ + x * x;
  xy_ = kKeep * xy_ + x * y;
}

RunningLine::Line RunningLine::Fit() const {
  if (seen_ == 0) return {};
  // One more point in the origin, or a little more spread of x than there is.
  const double weight = weight_ + (alone_ == Alone::kThroughOrigin ? kAssumed : 0);
  const double x = x_ / weight, y = y_ / weight;
  const double spread = xx_ / weight - x * x + (alone_ == Alone::kLevel ? kAssumed * x * x : 0);
  if (spread <= 0) return {.fixed = y};
  const double slope = std::max(0.0, (xy_ / weight - x * y) / spread);
  if (slope * x <= y) return {.fixed = y - slope * x, .slope = slope};
  return {.slope = xy_ / xx_};
}

double RunningLine::At(double x) const {
  const Line line = Fit();
  return line.fixed + line.slope * x;
}

}  // namespace tidepool
