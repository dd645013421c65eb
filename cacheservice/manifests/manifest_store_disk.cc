#include "cacheservice/manifests/manifest_store_disk.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"

namespace tidepool {
namespace {

// Keys: kind, tenant, zero byte, session id. Heads come before bodies, so a listing reads heads only.
constexpr char kHead = 'h', kBody = 'm';

std::string KeyOf(char kind, std::string_view tenant, std::string_view session_id) {
  std::string key(1, kind);
  key.append(tenant);
  key.push_back('\0');
  key.append(session_id);
  return key;
}

uint64_t BytesOf(size_t head_bytes, int64_t body_bytes) { return head_bytes + static_cast<uint64_t>(body_bytes); }

}  // namespace

DiskManifestStore::DiskManifestStore(Database* database, uint64_t limit_bytes, std::function<absl::Time()> clock)
    : database_(database), limit_bytes_(limit_bytes), clock_(std::move(clock)) {}

absl::StatusOr<std::unique_ptr<DiskManifestStore>> DiskManifestStore::Open(Database* database, uint64_t limit_bytes,
                                                                           std::function<absl::Time()> clock) {
  std::unique_ptr<DiskManifestStore> store(new DiskManifestStore(database, limit_bytes, std::move(clock)));
  TP_RETURN_IF_ERROR(store->Load());
  return store;
}

absl::Status DiskManifestStore::Load() {
  ManifestStats found;
  found.limit_bytes = limit_bytes_;
  const absl::Status scanned = database_->Scan(Family::kManifests, std::string(1, kHead), std::string(1, kHead + 1),
                                               [&found](std::string_view key, std::string_view value) {
                                                 ++found.sessions;
                                                 const absl::StatusOr<ManifestSummary> head = DecodeManifestHead(value);
                                                 found.bytes += BytesOf(value.size(), head.ok() ? head->body_bytes : 0);
                                                 return true;
                                               });
  if (!scanned.ok() && !absl::IsDataLoss(scanned)) return scanned;
  // The other sessions are there all the same; only the account lacks some.
  if (!scanned.ok()) TP_LOG(Error, "cache", "sessions cannot be counted: ", scanned.message());
  MutexLock lock(&mutex_);
  stats_ = found;
  return absl::OkStatus();
}

Mutex* DiskManifestStore::StripeOf(std::string_view key) {
  return &stripes_[std::hash<std::string_view>()(key) % kStripes];
}

absl::Status DiskManifestStore::Reserve(uint64_t old_bytes, uint64_t new_bytes) {
  MutexLock lock(&mutex_);
  const uint64_t others = stats_.bytes - std::min(old_bytes, stats_.bytes);  // damage may have hidden some at the start
  if (new_bytes > old_bytes && others + new_bytes > limit_bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "manifests: ", others + new_bytes, " bytes would pass the limit of ", limit_bytes_, " (manifest_bytes)"));
  }
  stats_.bytes = others + new_bytes;
  return absl::OkStatus();
}

absl::Status DiskManifestStore::Put(const SessionManifest& manifest, absl::Time deadline) {
  return Write(manifest, Kind::kTurn, deadline);
}

absl::Status DiskManifestStore::PutCopy(const SessionManifest& manifest, absl::Time deadline) {
  return Write(manifest, Kind::kCopy, deadline);
}

absl::Status DiskManifestStore::CheckRevision(const SessionManifest& manifest, const EncodedManifest& encoded,
                                              Kind kind, int64_t stored_revision) {
  if (kind == Kind::kTurn ? manifest.revision == stored_revision + 1 : manifest.revision > stored_revision) {
    return absl::OkStatus();
  }
  if (kind == Kind::kCopy && manifest.revision == stored_revision) {
    TP_ASSIGN_OR_RETURN(const std::optional<std::string> body,
                        database_->Get(Family::kManifests, KeyOf(kBody, manifest.tenant, manifest.session_id)));
    if (body == encoded.body) return absl::AlreadyExistsError("");
  }
  MutexLock lock(&mutex_);
  ++stats_.stale;
  return absl::AbortedError(absl::StrCat("session '", manifest.session_id, "': revision ", manifest.revision,
                                         " does not follow the stored revision ", stored_revision));
}

absl::Status DiskManifestStore::Write(const SessionManifest& given, Kind kind, absl::Time deadline) {
  TP_RETURN_IF_ERROR(ValidateManifest(given));
  if (clock_() > deadline && deadline != absl::InfiniteFuture()) {
    return absl::DeadlineExceededError("manifest: the deadline had passed before it was written");
  }
  SessionManifest manifest = given;
  if (kind == Kind::kTurn || manifest.updated_unix_ms == 0) manifest.updated_unix_ms = absl::ToUnixMillis(clock_());
  const EncodedManifest encoded = EncodeManifest(manifest);
  const std::string head_key = KeyOf(kHead, manifest.tenant, manifest.session_id);
  const std::string body_key = KeyOf(kBody, manifest.tenant, manifest.session_id);

  MutexLock stripe(StripeOf(head_key));
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> stored, database_->Get(Family::kManifests, head_key));
  int64_t stored_revision = 0;
  uint64_t old_bytes = 0;
  if (stored.has_value()) {
    TP_ASSIGN_OR_RETURN(const ManifestSummary summary, DecodeManifestHead(*stored));
    stored_revision = summary.revision;
    old_bytes = BytesOf(stored->size(), summary.body_bytes);
  }
  if (absl::Status follows = CheckRevision(manifest, encoded, kind, stored_revision); !follows.ok()) {
    return absl::IsAlreadyExists(follows) ? absl::OkStatus() : follows;
  }
  const uint64_t new_bytes = BytesOf(encoded.head.size(), static_cast<int64_t>(encoded.body.size()));
  TP_RETURN_IF_ERROR(Reserve(old_bytes, new_bytes));
  const Mutation mutations[] = {{.family = Family::kManifests, .key = head_key, .value = encoded.head},
                                {.family = Family::kManifests, .key = body_key, .value = encoded.body}};
  if (const absl::Status written = database_->Write(mutations, Durability::kSynced); !written.ok()) {
    Reserve(new_bytes, old_bytes).IgnoreError();
    return written;
  }
  if (on_use_) on_use_(manifest);
  MutexLock lock(&mutex_);
  ++stats_.puts;
  stats_.sessions += !stored.has_value();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<int64_t>> DiskManifestStore::Revision(std::string_view tenant,
                                                                   std::string_view session_id) const {
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> head,
                      database_->Get(Family::kManifests, KeyOf(kHead, tenant, session_id)));
  if (!head.has_value()) return std::nullopt;
  TP_ASSIGN_OR_RETURN(const ManifestSummary summary, DecodeManifestHead(*head));
  return summary.revision;
}

absl::StatusOr<std::optional<SessionManifest>> DiskManifestStore::Read(std::string_view tenant,
                                                                       std::string_view session_id) {
  const std::string head_key = KeyOf(kHead, tenant, session_id);
  MutexLock stripe(StripeOf(head_key));
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> head, database_->Get(Family::kManifests, head_key));
  if (!head.has_value()) return std::nullopt;
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> body,
                      database_->Get(Family::kManifests, KeyOf(kBody, tenant, session_id)));
  if (!body.has_value()) return absl::DataLossError("manifest record: the body is missing");
  TP_ASSIGN_OR_RETURN(SessionManifest manifest, DecodeManifest(*head, *body));
  if (manifest.tenant != tenant || manifest.session_id != session_id) {
    return absl::DataLossError("manifest record: it belongs to another session");
  }
  return manifest;
}

absl::StatusOr<std::optional<SessionManifest>> DiskManifestStore::Get(std::string_view tenant,
                                                                      std::string_view session_id,
                                                                      absl::Time deadline) {
  absl::StatusOr<std::optional<SessionManifest>> manifest = Read(tenant, session_id);
  if (on_use_ && manifest.ok() && manifest->has_value()) on_use_(**manifest);
  MutexLock lock(&mutex_);
  ++stats_.gets;
  if (!manifest.ok()) {
    stats_.corrupt += absl::IsDataLoss(manifest.status());
  } else if (!manifest->has_value()) {
    ++stats_.misses;
  }
  return manifest;
}

absl::Status DiskManifestStore::Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) {
  const std::string head_key = KeyOf(kHead, tenant, session_id);
  const std::string body_key = KeyOf(kBody, tenant, session_id);
  MutexLock stripe(StripeOf(head_key));
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> head, database_->Get(Family::kManifests, head_key));
  if (!head.has_value()) return absl::OkStatus();
  const absl::StatusOr<ManifestSummary> summary = DecodeManifestHead(*head);
  const Mutation mutations[] = {{.family = Family::kManifests, .key = head_key, .erase = true},
                                {.family = Family::kManifests, .key = body_key, .erase = true}};
  TP_RETURN_IF_ERROR(database_->Write(mutations, Durability::kSynced));
  Reserve(BytesOf(head->size(), summary.ok() ? summary->body_bytes : 0), 0).IgnoreError();
  MutexLock lock(&mutex_);
  ++stats_.deletes;
  stats_.sessions -= std::min<uint64_t>(stats_.sessions, 1);
  return absl::OkStatus();
}

absl::StatusOr<ManifestPage> DiskManifestStore::List(std::string_view tenant, int limit,
                                                     std::string_view page_token) const {
  if (limit < 1 || limit > 1000)
    return absl::InvalidArgumentError(absl::StrCat("limit: ", limit, " is not in 1 to 1000"));
  std::string first(1, kHead), end(1, kHead + 1);
  if (!tenant.empty()) {
    first = KeyOf(kHead, tenant, "");
    end = first;
    end.back() = '\x01';
  }
  if (!page_token.empty()) {
    std::string after;
    if (!absl::WebSafeBase64Unescape(std::string(page_token), &after) || after < first || after >= end) {
      return absl::InvalidArgumentError("page_token: this listing never gave it");
    }
    first = after + '\0';  // the key after it
  }
  ManifestPage page;
  std::string last;
  TP_RETURN_IF_ERROR(database_->Scan(Family::kManifests, first, end, [&](std::string_view key, std::string_view value) {
    if (static_cast<int>(page.sessions.size()) == limit) {
      page.next_page_token = absl::WebSafeBase64Escape(last);
      return false;
    }
    absl::StatusOr<ManifestSummary> summary = DecodeManifestHead(value);
    if (summary.ok()) {
      page.sessions.push_back(*std::move(summary));
    } else {
      TP_LOG(Warning, "cache", "a session in the listing is damaged: ", summary.status().message());
    }
    last = std::string(key);
    return true;
  }));
  return page;
}

absl::Status DiskManifestStore::Visit(absl::Time since, absl::FunctionRef<void(const SessionManifest&)> visit) {
  std::string token;
  do {
    TP_ASSIGN_OR_RETURN(const ManifestPage page, List("", /*limit=*/1000, token));
    for (const ManifestSummary& summary : page.sessions) {
      if (absl::FromUnixMillis(summary.updated_unix_ms) <= since) continue;
      TP_ASSIGN_OR_RETURN(const std::optional<SessionManifest> manifest, Read(summary.tenant, summary.session_id));
      if (manifest.has_value()) visit(*manifest);
    }
    token = page.next_page_token;
  } while (!token.empty());
  return absl::OkStatus();
}

ManifestStats DiskManifestStore::Stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

}  // namespace tidepool
