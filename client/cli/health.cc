// tidepool health: whether a server answers and serves, for the health checks of containers.
#include <algorithm>
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/check_health.h"
#include "client/cli/cli.h"

ABSL_FLAG(absl::Duration, wait, absl::ZeroDuration(), "how long to ask again until the server serves, such as 1m");

namespace tidepool::cli {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(4);  // health checks are asked every few seconds
constexpr absl::Duration kBetween = absl::Milliseconds(100);

int Health(const Arguments& arguments) {
  if (arguments.size() > 1) return UsageError("health: usage is tidepool health [ADDRESS]");
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  const std::string address = arguments.empty() ? WorkerAddress() : arguments[0];
  const absl::Time patience = absl::Now() + absl::GetFlag(FLAGS_wait);
  absl::Status healthy = CheckHealth(address, *security, std::min(Deadline(), absl::Now() + kLongest));
  while (!healthy.ok() && absl::Now() + kBetween < patience) {
    absl::SleepFor(kBetween);
    healthy = CheckHealth(address, *security, absl::Now() + kLongest);
  }
  if (!healthy.ok()) return Fail(healthy);
  std::printf("%s serves\n", address.c_str());
  return kOk;
}

}  // namespace

Command HealthCommand() {
  return {.name = "health",
          .arguments = "[ADDRESS]",
          .summary = "whether a worker or cache service serves",
          .details =
              "ADDRESS is host:port or unix:PATH of any server of Tidepool that speaks gRPC, or 127.0.0.1:7071. "
              "It gets 4 seconds.",
          .flags = {"--timeout", "--wait", kChannelFlags},
          .run = Health};
}

}  // namespace tidepool::cli
