// The subcommands of `tidepool admin`, each in a file of its own or with its like. All return an exit code.
#ifndef TIDEPOOL_CLIENT_CLI_ADMIN_COMMANDS_H_
#define TIDEPOOL_CLIENT_CLI_ADMIN_COMMANDS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/admin_client.h"
#include "client/cli/cli.h"

namespace tidepool::cli {

// Where to ask, and as whom.
struct AdminTarget {
  std::vector<std::string> pods;  // at least one
  std::string tenant;             // empty: the caller's own
  std::shared_ptr<const ChannelSecurity> security;

  AdminClient Client(const std::string& pod) const { return AdminClient(pod, tenant, security); }
};

// The default address is where tidepool-cache listens; who runs tidepool serve is told where to look.
int FailCache(const absl::Status& status);
inline unsigned long long Number(uint64_t value) { return value; }  // for %llu
// "2026-01-31 12:00:00"
std::string When(int64_t unix_ms);
// With several pods and without --json: which one's lines follow.
void PrintPodHeading(const AdminTarget& target, const std::string& pod);

int AdminTop(const AdminTarget& target);
int AdminExplain(const AdminTarget& target);
int AdminPin(const AdminTarget& target, const std::string& session);
int AdminUnpin(const AdminTarget& target, const std::string& session);
int AdminPins(const AdminTarget& target);
int AdminQuota(const AdminTarget& target, const Arguments& arguments);  // the tenant, or nothing
int AdminScrub(const AdminTarget& target);
int AdminCompact(const AdminTarget& target);
int AdminConfig(const AdminTarget& target, const Arguments& arguments);  // NAME=VALUE, or nothing

// The tokens and keys of --prompt or --prompt-file, from a worker or, with --model, computed here.
absl::StatusOr<v1::ListBlockKeysResponse> PromptKeys(const AdminTarget& target);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_ADMIN_COMMANDS_H_
