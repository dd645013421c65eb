// A session's context as a manifest and back: token ids, block keys, and the engine state that the cache service does
// not look into: which rows are resident, merged rows, scores, thresholds, remembered queries.
#ifndef TIDEPOOL_WORKER_ENGINE_CONTEXT_CODEC_H_
#define TIDEPOOL_WORKER_ENGINE_CONTEXT_CODEC_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cacheservice/api/manifest_store.h"
#include "worker/engine/context.h"

namespace tidepool {

class ContextCodec {
 public:
  // All but tenant, fingerprint and revision. The tail block is the one that BlockLog::StoreTail stores.
  static SessionManifest Save(Context& context);

  // What must be known of a session before its rows have a place.
  struct Outline {
    CompressionSpec spec;
    int32_t longest_head = 0;  // rows
  };
  // DataLoss when the state is not ours.
  static absl::StatusOr<Outline> OutlineOf(const SessionManifest& manifest);

  // A context equal to the saved one: rows from the block values [block][layer], merged rows from the state. `options`
  // without the nonce. DataLoss when state and blocks do not fit together.
  static absl::StatusOr<std::unique_ptr<Context>> Restore(const SessionManifest& manifest,
                                                          absl::Span<const std::string> values, ContextOptions options,
                                                          Backend* backend, BlockCache* cache);
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_CONTEXT_CODEC_H_
