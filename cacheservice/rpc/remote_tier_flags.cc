#include "cacheservice/rpc/remote_tier_flags.h"

#include <cstdlib>
#include <optional>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cacheservice/resp/server_url.h"
#include "security/file_stamp.h"

ABSL_FLAG(
    std::string, remote_tier, "",
    "engine below the disk that speaks RESP (Redis, Redis Cluster, Valkey, Kvrocks): redis://HOST:PORT[,HOST:PORT...], "
    "rediss:// over TLS, redis+unix:///PATH; USER:PASSWORD@ before the first host. Empty: none");
ABSL_FLAG(std::string, remote_tier_password_file, "",
          "file with the password, instead of one in the address; without either TIDEPOOL_REMOTE_TIER_PASSWORD of the "
          "environment");
ABSL_FLAG(std::string, remote_tier_ca_file, "",
          "rediss://: PEM file of who signs the servers' certificates; empty: the system's");
ABSL_FLAG(std::string, remote_tier_cert_file, "",
          "rediss://: PEM file of our certificate, for servers that ask for one");
ABSL_FLAG(std::string, remote_tier_key_file, "", "rediss://: PEM file of our certificate's key");
ABSL_FLAG(std::string, remote_tier_server_name, "",
          "rediss://: name that the servers' certificates carry; empty: each host as it is connected to");
ABSL_FLAG(absl::Duration, remote_tier_ttl, absl::ZeroDuration(),
          "how long the engine keeps a value that is not used: 1s to 87840h; 0: until it needs the memory");
ABSL_FLAG(absl::Duration, remote_tier_timeout, absl::Seconds(1),
          "how long a batch of reads may take before it counts as missed: 1ms to 60s");
ABSL_FLAG(absl::Duration, remote_tier_retry, absl::Seconds(5),
          "how long a failing engine is left alone at first: 1ms to 5m; doubles up to 5m with each probe that fails");
ABSL_FLAG(std::string, remote_tier_piece_bytes, "512KiB", "larger values are stored in pieces: 64KiB to 1MiB");

namespace tidepool {
namespace {

constexpr const char* kPasswordVariable = "TIDEPOOL_REMOTE_TIER_PASSWORD";
constexpr size_t kMostPasswordBytes = 4096;

absl::StatusOr<std::string> ReadPassword(const std::string& file) {
  const auto wrong = [](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("--remote-tier-password-file: ", what));
  };
  absl::StatusOr<std::string> password = ReadSmallFile(file, kMostPasswordBytes);
  if (!password.ok()) return wrong(password.status().message());
  while (!password->empty() && (password->back() == '\n' || password->back() == '\r')) password->pop_back();
  if (password->empty()) return wrong(absl::StrCat(file, ": is empty"));
  return password;
}

}  // namespace

absl::StatusOr<RemoteTierOptions> RemoteTierFromFlags() {
  RemoteTierOptions options;
  options.url = absl::GetFlag(FLAGS_remote_tier);
  if (const std::string file = absl::GetFlag(FLAGS_remote_tier_password_file); !file.empty()) {
    TP_ASSIGN_OR_RETURN(options.password, ReadPassword(file));
  } else if (const char* password = std::getenv(kPasswordVariable); password != nullptr) {
    const absl::StatusOr<RespServers> servers = ParseRespServers(options.url);
    if (servers.ok() && servers->password.empty()) options.password = password;
  }
  options.ca_file = absl::GetFlag(FLAGS_remote_tier_ca_file);
  options.cert_file = absl::GetFlag(FLAGS_remote_tier_cert_file);
  options.key_file = absl::GetFlag(FLAGS_remote_tier_key_file);
  options.server_name = absl::GetFlag(FLAGS_remote_tier_server_name);
  options.ttl = absl::GetFlag(FLAGS_remote_tier_ttl);
  options.timeout = absl::GetFlag(FLAGS_remote_tier_timeout);
  options.breaker.first_pause = absl::GetFlag(FLAGS_remote_tier_retry);
  const std::optional<uint64_t> piece = ParseByteSize(absl::GetFlag(FLAGS_remote_tier_piece_bytes));
  if (!piece.has_value() || *piece > UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("--remote-tier-piece-bytes: '",
                                                   absl::GetFlag(FLAGS_remote_tier_piece_bytes),
                                                   "' is not a size such as 512KiB"));
  }
  options.piece_bytes = static_cast<uint32_t>(*piece);
  return options;
}

}  // namespace tidepool
