#include "cacheservice/tiers/remote_options.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/resp/server_url.h"
#include "cacheservice/tiers/remote_record.h"

namespace tidepool {
namespace {

constexpr int64_t kMostTtlHours = 10 * 366 * 24;

absl::Status Wrong(const char* field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("remote_tier", field, ": ", what));
}

absl::Status CheckDuration(const char* field, absl::Duration value, absl::Duration least, absl::Duration most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Wrong(field, absl::StrCat(absl::FormatDuration(value), " is not in ", absl::FormatDuration(least), " to ",
                                   absl::FormatDuration(most)));
}

}  // namespace

absl::Status RemoteTierOptions::Validate() const {
  if (!enabled()) return absl::OkStatus();
  const absl::StatusOr<RespServers> servers = ParseRespServers(url);
  if (!servers.ok()) return Wrong("", std::string(servers.status().message()));
  const bool tls_files = !ca_file.empty() || !cert_file.empty() || !key_file.empty() || !server_name.empty();
  if (tls_files && !servers->tls) return Wrong("", "certificates are named, but the address is not rediss://");
  for (const RespEndpoint& endpoint : servers->endpoints) {
    if (servers->tls || insecure || endpoint.IsLocal()) continue;
    return Wrong("", absl::StrCat(endpoint.ToString(),
                                  " is not a loopback address or Unix socket; plain text there needs --insecure"));
  }
  if (piece_bytes < kMinPieceBytes || piece_bytes > kMaxPieceBytes) {
    return Wrong(".piece_bytes", absl::StrCat(piece_bytes, " is not in ", kMinPieceBytes, " to ", kMaxPieceBytes));
  }
  if (ttl != absl::ZeroDuration()) {
    TP_RETURN_IF_ERROR(CheckDuration("_ttl", ttl, absl::Seconds(1), absl::Hours(kMostTtlHours)));
  }
  TP_RETURN_IF_ERROR(CheckDuration("_timeout", timeout, absl::Milliseconds(1), absl::Seconds(60)));
  if (readers < 1 || readers > 64) return Wrong(".readers", absl::StrCat(readers, " is not in 1 to 64"));
  if (breaker.failures_to_open < 1) {
    return Wrong(".breaker.failures_to_open", absl::StrCat(breaker.failures_to_open, ", at least 1"));
  }
  TP_RETURN_IF_ERROR(
      CheckDuration(".breaker.first_pause", breaker.first_pause, absl::Milliseconds(1), breaker.longest_pause));
  return CheckDuration(".breaker.longest_pause", breaker.longest_pause, breaker.first_pause, absl::Hours(1));
}

}  // namespace tidepool
