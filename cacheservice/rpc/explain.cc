#include "cacheservice/rpc/explain.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/admin_messages.h"
#include "cacheservice/wire/messages.h"

namespace tidepool {
namespace {

v1::BlockPlace::Departure DepartureTo(Departure::Reason reason) {
  switch (reason) {
    case Departure::Reason::kNone: return v1::BlockPlace::DEPARTURE_UNSPECIFIED;
    case Departure::Reason::kRoom: return v1::BlockPlace::DEPARTURE_ROOM;
    case Departure::Reason::kQuota: return v1::BlockPlace::DEPARTURE_QUOTA;
    case Departure::Reason::kCorrupt: return v1::BlockPlace::DEPARTURE_CORRUPT;
    case Departure::Reason::kDisk: return v1::BlockPlace::DEPARTURE_DISK;
    case Departure::Reason::kUnused: return v1::BlockPlace::DEPARTURE_UNUSED;
  }
  return v1::BlockPlace::DEPARTURE_UNSPECIFIED;
}

void Fill(const BlockPlace& from, v1::BlockPlace& to) {
  to.set_memory_layers(from.memory_layers);
  to.set_disk_layers(from.disk_layers);
  to.set_remote_layers(from.remote_layers);
  to.set_missing_layers(from.missing_layers);
  to.set_pinned(from.pinned);
  to.set_tenant(from.tenant);
  to.set_departure(DepartureTo(from.departure.reason));
  if (from.departure.reason == Departure::Reason::kNone) return;
  to.set_departed_seconds(absl::ToDoubleSeconds(absl::Now() - from.departure.when));
}

// What the session's beginning has in common with the prompt.
v1::SessionMatch Compare(const SessionManifest& session, absl::Span<const int32_t> prompt,
                         absl::Span<const BlockKey> keys) {
  v1::SessionMatch match;
  const auto [ours, theirs] =
      std::mismatch(prompt.begin(), prompt.end(), session.token_ids.begin(), session.token_ids.end());
  match.set_session_id(session.session_id);
  match.set_preset(session.preset);
  match.set_common_tokens(ours - prompt.begin());
  match.set_tokens(static_cast<int64_t>(session.token_ids.size()));
  if (theirs != session.token_ids.end()) match.set_next_token_id(*theirs);
  const auto [key, stored] =
      std::mismatch(keys.begin(), keys.end(), session.block_keys.begin(), session.block_keys.end());
  match.set_common_blocks(key - keys.begin());
  return match;
}

absl::StatusOr<std::optional<v1::SessionMatch>> FindClosest(DiskManifestStore& manifests,
                                                            const v1::ExplainRequest& request,
                                                            const std::string& tenant, absl::Span<const BlockKey> keys,
                                                            absl::Time deadline) {
  std::optional<v1::SessionMatch> closest;
  TP_ASSIGN_OR_RETURN(const ManifestPage page, manifests.List(tenant, kMostComparedSessions, ""));
  for (const ManifestSummary& summary : page.sessions) {
    if (absl::Now() >= deadline) break;
    const auto session = manifests.Get(tenant, summary.session_id, deadline);
    if (!session.ok() || !session->has_value()) continue;  // damaged, or dropped meanwhile
    if (!request.model_fingerprint().empty() && (*session)->model_fingerprint != request.model_fingerprint()) continue;
    v1::SessionMatch match = Compare(**session, request.token_ids(), keys);
    if (match.common_tokens() == 0) continue;
    if (!closest.has_value() || match.common_tokens() > closest->common_tokens()) closest = std::move(match);
  }
  return closest;
}

}  // namespace

absl::StatusOr<std::vector<BlockKey>> KeysFrom(const google::protobuf::RepeatedPtrField<std::string>& given) {
  if (given.size() > kMaxWireSelections) {
    return absl::InvalidArgumentError(absl::StrCat("keys: ", given.size(), ", at most ", kMaxWireSelections));
  }
  std::vector<BlockKey> keys(given.size());
  for (int i = 0; i < given.size(); ++i) {
    if (given[i].size() != keys[i].bytes.size()) {
      return absl::InvalidArgumentError(absl::StrCat("keys[", i, "]: ", given[i].size(), " bytes, 16 are needed"));
    }
    std::memcpy(keys[i].bytes.data(), given[i].data(), keys[i].bytes.size());
  }
  return keys;
}

absl::Status Explain(TieredStore& blocks, DiskManifestStore& manifests, const v1::ExplainRequest& request,
                     const std::string& tenant, absl::Time deadline, v1::ExplainResponse* response) {
  TP_ASSIGN_OR_RETURN(const std::vector<BlockKey> keys, KeysFrom(request.keys()));
  if (request.layers() < 1 || request.layers() > 1024) {
    return absl::InvalidArgumentError(absl::StrCat("layers: ", request.layers(), " is not in 1 to 1024"));
  }
  bool remote_asked = false;
  for (const BlockPlace& place : blocks.Places(keys, request.layers(), deadline, &remote_asked)) {
    Fill(place, *response->add_blocks());
  }
  response->set_remote_asked(remote_asked);
  const auto rate = static_cast<double>(request.compute_bytes_per_second());
  const TieredStore::SlowTiers slow = blocks.SlowFor(rate);
  const CacheStats stats = blocks.Stats();
  response->set_disk_slow(slow.disk);
  Fill(stats.disk_reads, *response->mutable_disk_reads());
  if (stats.remote.enabled) {
    response->set_remote_slow(slow.remote);
    Fill(stats.remote_reads, *response->mutable_remote_reads());
  }
  if (request.token_ids().empty()) return absl::OkStatus();
  TP_ASSIGN_OR_RETURN(std::optional<v1::SessionMatch> closest, FindClosest(manifests, request, tenant, keys, deadline));
  if (closest.has_value()) *response->mutable_closest() = *std::move(closest);
  return absl::OkStatus();
}

}  // namespace tidepool
