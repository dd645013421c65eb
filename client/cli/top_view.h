// What `tidepool admin top` shows: two looks at cache pods and workers, as rates and shares, and these as a page of 80
// columns or as JSON. Pure: the looking is admin_top.cc's.
#ifndef TIDEPOOL_CLIENT_CLI_TOP_VIEW_H_
#define TIDEPOOL_CLIENT_CLI_TOP_VIEW_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tidepool/v1/cache_admin.pb.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

// One look. A pod or worker that did not answer has a status, and no stats.
struct TopLook {
  struct Pod {
    std::string address;
    absl::Status status;
    v1::GetStatsResponse stats;
  };
  struct Worker {
    std::string address;
    absl::Status status;
    v1::GetWorkerStatsResponse stats;
  };
  absl::Time time;
  std::vector<Pod> pods;
  std::vector<Worker> workers;
};

// `before` and `now` are of the same addresses, in the same order. Rates are per second between them; of one that was
// started in between, or did not answer before, they are 0.
//
// Lines of at most 80 characters, each ended by a newline; `height`: at most so many lines, less of the tenants and
// streams then; 0: all.
std::string TopPage(const TopLook& before, const TopLook& now, int height);
// One line of JSON with a newline.
std::string TopJson(const TopLook& before, const TopLook& now);

// "1.2k", "3.4M": at most five characters.
std::string ShortNumber(double value);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_TOP_VIEW_H_
