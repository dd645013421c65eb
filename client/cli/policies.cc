// tidepool policies: what a worker can be asked for as --preset and --score.
#include <cstdio>

#include "client/cli/cli.h"
#include "client/generation_client.h"

namespace tidepool::cli {
namespace {

int Policies(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError("policies: takes no arguments");
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  GenerationClient client(WorkerAddress(), *security);
  const absl::StatusOr<v1::ListPoliciesResponse> listed = client.ListPolicies();
  if (!listed.ok()) return Fail(listed.status());
  if (Json()) {
    PrintJson(*listed);
    return kOk;
  }
  for (const v1::ListPoliciesResponse::Policy& policy : listed->policies()) {
    std::printf("%-20s %s\n", policy.name().c_str(), policy.summary().c_str());
  }
  std::printf("\nscores:");
  for (const std::string& score : listed->scores()) std::printf(" %s", score.c_str());
  std::printf("\n");
  return kOk;
}

}  // namespace

Command PoliciesCommand() {
  return {.name = "policies",
          .arguments = "",
          .summary = "the presets, named policies and scores of a worker",
          .details = "",
          .flags = {"--worker", "--json", kChannelFlags},
          .run = Policies};
}

}  // namespace tidepool::cli
