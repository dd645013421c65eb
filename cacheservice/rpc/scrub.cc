#include "cacheservice/rpc/scrub.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr uint64_t kLeastRate = uint64_t{64} << 10;
constexpr uint64_t kMostRate = uint64_t{64} << 30;
constexpr size_t kValuesAtOnce = 8;
constexpr absl::Duration kBetweenReports = absl::Milliseconds(500);

// Keeps to a number of bytes a second. What was not used does not add up: a pause of the disk is no reason to hurry.
class Pace {
 public:
  explicit Pace(uint64_t bytes_per_second) : seconds_per_byte_(1 / static_cast<double>(bytes_per_second)) {}
  // After so many bytes. False: cancelled.
  bool Wait(uint64_t bytes, JobControl& control) {
    due_ = std::max(due_, absl::Now() - absl::Milliseconds(100)) +
           absl::Seconds(static_cast<double>(bytes) * seconds_per_byte_);
    return control.WaitUntil(due_);
  }

 private:
  const double seconds_per_byte_;
  absl::Time due_ = absl::Now();
};

}  // namespace

absl::Status CheckScrubRate(uint64_t bytes_per_second) {
  if (bytes_per_second == 0 || (bytes_per_second >= kLeastRate && bytes_per_second <= kMostRate)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("bytes_per_second: ", bytes_per_second, " is not 0 or in ", kLeastRate, " to ", kMostRate));
}

absl::Status Scrub(TieredStore& blocks, DiskManifestStore& manifests, uint64_t bytes_per_second, JobControl& control,
                   const std::function<void(const v1::ScrubProgress&)>& report) {
  const std::vector<BlockId> ids = blocks.Ids(/*all=*/true);
  v1::ScrubProgress progress;
  progress.set_objects(ids.size());
  Pace pace(bytes_per_second == 0 ? kDefaultScrubBytes : bytes_per_second);
  absl::Time reported = absl::Now();
  report(progress);
  const auto after = [&](uint64_t bytes) {
    progress.set_bytes_read(progress.bytes_read() + bytes);
    if (absl::Now() - reported >= kBetweenReports) {
      report(progress);
      reported = absl::Now();
    }
    return pace.Wait(bytes, control);
  };
  for (size_t first = 0; first < ids.size(); first += kValuesAtOnce) {
    const auto batch = absl::MakeConstSpan(ids).subspan(first, kValuesAtOnce);
    const TieredStore::Scrubbed scrubbed = blocks.Scrub(batch);
    progress.set_objects_read(progress.objects_read() + batch.size());
    progress.set_corrupt(progress.corrupt() + scrubbed.corrupt);
    progress.set_unreadable(progress.unreadable() + scrubbed.unreadable);
    if (!after(scrubbed.bytes)) return absl::CancelledError("scrub: cancelled");
  }
  std::string token;
  do {
    TP_ASSIGN_OR_RETURN(const ManifestPage page, manifests.List("", 1000, token));
    token = page.next_page_token;
    for (const ManifestSummary& session : page.sessions) {
      const auto read = manifests.Get(session.tenant, session.session_id, absl::InfiniteFuture());
      progress.set_manifests_read(progress.manifests_read() + 1);
      if (!read.ok()) {
        TP_LOG(Error, "cache", "scrub: session ", session.session_id, ": ", read.status().message());
        progress.set_manifests_corrupt(progress.manifests_corrupt() + 1);
      }
      if (!after(static_cast<uint64_t>(session.body_bytes))) return absl::CancelledError("scrub: cancelled");
    }
  } while (!token.empty());
  progress.set_finished(true);
  TP_LOG(Info, "cache", "scrub: ", progress.objects_read(), " values and ", progress.manifests_read(), " manifests, ",
         progress.corrupt(), " and ", progress.manifests_corrupt(), " of them damaged");
  report(progress);
  return absl::OkStatus();
}

}  // namespace tidepool
