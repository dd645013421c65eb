// tidepool health: whether a server answers and serves, for the health checks of containers.
#include <algorithm>
#include <cstdio>

#include "client/check_health.h"
#include "client/cli/cli.h"

namespace tidepool::cli {
namespace {

constexpr absl::Duration kLongest = absl::Seconds(4);  // health checks are asked every few seconds

int Health(const Arguments& arguments) {
  if (arguments.size() > 1) return UsageError("health: usage is tidepool health [ADDRESS]");
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  const std::string address = arguments.empty() ? WorkerAddress() : arguments[0];
  const absl::Status healthy = CheckHealth(address, *security, std::min(Deadline(), absl::Now() + kLongest));
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
          .flags = {"--timeout", kChannelFlags},
          .run = Health};
}

}  // namespace tidepool::cli
