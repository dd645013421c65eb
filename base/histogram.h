// Observations counted by upper bound, as a plain value: modules carry it in their stats, `metrics/` shows it.
// Not synchronised: whoever observes owns it, readers get copies.
//
//   Histogram seconds(kSecondsBounds);
//   seconds.Observe(0.02);
#ifndef TIDEPOOL_BASE_HISTOGRAM_H_
#define TIDEPOOL_BASE_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "base/check.h"

namespace tidepool {

class Histogram {
 public:
  static constexpr size_t kMostBounds = 20;

  // bounds: ascending, at most kMostBounds, of static storage: only a reference is kept.
  explicit Histogram(absl::Span<const double> bounds) : bounds_(bounds) {
    TIDEPOOL_CHECK(bounds.size() <= kMostBounds && std::is_sorted(bounds.begin(), bounds.end()));
  }

  // `times` observations of the same value. What is no number is not counted.
  void Observe(double value, int64_t times = 1) {
    if (value != value || times <= 0) return;
    const size_t bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
    counts_[bucket] += times;
    count_ += times;
    sum_ += value * static_cast<double>(times);
  }

  absl::Span<const double> bounds() const { return bounds_; }
  // Observations at most bounds()[i] and above the bound before it; i == bounds().size(): above all of them.
  int64_t bucket(size_t i) const { return counts_[i]; }
  int64_t count() const { return count_; }
  double sum() const { return sum_; }

 private:
  absl::Span<const double> bounds_;
  std::array<int64_t, kMostBounds + 1> counts_ = {};
  int64_t count_ = 0;
  double sum_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_HISTOGRAM_H_
