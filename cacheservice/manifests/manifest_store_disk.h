// Session manifests in the database of the disk tier: own column family, synced log before Put returns. Thread-safe;
// writes of one session are ordered by its revision, writes of different sessions share syncs.
#ifndef TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_STORE_DISK_H_
#define TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_STORE_DISK_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/api/manifest_store.h"
#include "cacheservice/manifests/manifest_codec.h"

namespace tidepool {

class Database;

struct ManifestPage {
  std::vector<ManifestSummary> sessions;  // by tenant, then session id
  std::string next_page_token;            // empty: this was the last page
};

struct ManifestStats {
  int64_t sessions = 0;
  uint64_t bytes = 0;
  uint64_t limit_bytes = 0;
  uint64_t puts = 0, gets = 0, misses = 0, deletes = 0;
  uint64_t stale = 0;    // puts refused for their revision
  uint64_t corrupt = 0;  // reads that ended in DataLoss
};

class DiskManifestStore final : public ManifestStore {
 public:
  // `database` is open and outlives the store. `clock` stamps updated_unix_ms.
  static absl::StatusOr<std::unique_ptr<DiskManifestStore>> Open(Database* database, uint64_t limit_bytes,
                                                                 std::function<absl::Time()> clock = absl::Now);

  // InvalidArgument as ValidateManifest; Aborted naming both revisions; ResourceExhausted when all manifests together
  // would pass the limit, or the disk is full or read-only; DeadlineExceeded when the deadline has passed before the
  // write.
  absl::Status Put(const SessionManifest& manifest, absl::Time deadline) override;
  // A manifest that is stored elsewhere: replaces any of a lower revision, and keeps its time. OK and nothing changes
  // when it is there. Aborted: another of its revision, or a higher one, is there. Else as Put.
  absl::Status PutCopy(const SessionManifest& manifest, absl::Time deadline);
  // nullopt: no such session.
  absl::StatusOr<std::optional<int64_t>> Revision(std::string_view tenant, std::string_view session_id) const;
  // DataLoss: the record is damaged. It is left for inspection; Delete removes it.
  absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                     absl::Time deadline) override;
  absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) override;

  // Up to `limit` (1 to 1000) sessions, of one tenant or (empty) of all, from a token of the page before.
  // InvalidArgument: a limit out of range or a token that this call never gave.
  absl::StatusOr<ManifestPage> List(std::string_view tenant, int limit, std::string_view page_token) const;

  // Each session that was stored after `since`, until the first that cannot be read.
  absl::Status Visit(absl::Time since, absl::FunctionRef<void(const SessionManifest&)> visit);
  // Told of each manifest that is stored or read, from the thread that does. Set before the first of them.
  void OnUse(std::function<void(const SessionManifest&)> on_use) { on_use_ = std::move(on_use); }

  ManifestStats Stats() const;

 private:
  static constexpr int kStripes = 64;  // sessions that may be written at the same time
  enum class Kind : uint8_t { kTurn, kCopy };

  absl::Status Write(const SessionManifest& given, Kind kind, absl::Time deadline);
  // OK: the given manifest follows what is stored. AlreadyExists: it is the one that is stored.
  absl::Status CheckRevision(const SessionManifest& manifest, const EncodedManifest& encoded, Kind kind,
                             int64_t stored_revision);

  DiskManifestStore(Database* database, uint64_t limit_bytes, std::function<absl::Time()> clock);
  absl::Status Load();
  Mutex* StripeOf(std::string_view key);
  absl::Status Reserve(uint64_t old_bytes, uint64_t new_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::optional<SessionManifest>> Read(std::string_view tenant, std::string_view session_id);

  Database* const database_;
  const uint64_t limit_bytes_;
  const std::function<absl::Time()> clock_;
  std::function<void(const SessionManifest&)> on_use_;  // null: nobody wants to know
  std::array<Mutex, kStripes> stripes_;                 // held over read-check-write of a session; taken before mutex_
  mutable Mutex mutex_;
  ManifestStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_STORE_DISK_H_
