// Where cells go: a line each as soon as it is known, and all of them as JSON (scripts/quality_report.py draws them).
#ifndef TIDEPOOL_BENCH_QUALITY_REPORT_H_
#define TIDEPOOL_BENCH_QUALITY_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include "bench/quality/cell.h"

namespace tidepool::quality {

class Report {
 public:
  // json: file that holds all cells so far after each; empty: none.
  explicit Report(std::string json) : json_(std::move(json)) {}

  void Add(const Cell& cell);

 private:
  const std::string json_;
  std::vector<Cell> cells_;
};

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_REPORT_H_
