// Session manifests: what any worker needs to resume a session. Durable when Put has returned OK.
#ifndef TIDEPOOL_CACHESERVICE_API_MANIFEST_STORE_H_
#define TIDEPOOL_CACHESERVICE_API_MANIFEST_STORE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "policies/kv/block_key.h"

namespace tidepool {

struct SessionManifest {
  std::string tenant;
  std::string session_id;
  std::string model_fingerprint;
  int64_t revision = 0;              // 1 for the first Put, then +1 for each: a stale writer is refused (Aborted)
  int64_t updated_unix_ms = 0;       // set by the store
  std::vector<int32_t> token_ids;    // prompt and generated, all turns
  std::vector<BlockKey> block_keys;  // of the tokens whose KV is computed; the last block may be partial
  std::string preset;                // for people; the truth is in engine_state
  std::string engine_state;          // opaque to the cache: policy state, residents, merged rows (worker/engine)

  friend bool operator==(const SessionManifest&, const SessionManifest&) = default;
};

class ManifestStore {
 public:
  virtual ~ManifestStore() = default;
  // Replaces the session's manifest when manifest.revision is the stored revision + 1, else Aborted naming both.
  virtual absl::Status Put(const SessionManifest& manifest, absl::Time deadline) = 0;
  // nullopt: no such session (not an error).
  virtual absl::StatusOr<std::optional<SessionManifest>> Get(std::string_view tenant, std::string_view session_id,
                                                             absl::Time deadline) = 0;
  // Deletes the manifest; its blocks are left to the tiers' replacement. OK when there is none.
  virtual absl::Status Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_API_MANIFEST_STORE_H_
