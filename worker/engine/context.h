// What a sequence is between steps and between the turns of a session: its tokens, the rows on the device, the log of
// what went to the cache service, and the state of its compression and recall.
#ifndef TIDEPOOL_WORKER_ENGINE_CONTEXT_H_
#define TIDEPOOL_WORKER_ENGINE_CONTEXT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/token_class.h"
#include "worker/backend/backend.h"
#include "worker/engine/session_name.h"
#include "worker/kv/block_log.h"
#include "worker/kv/compressor.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/repetition.h"
#include "worker/kv/retention_observer.h"
#include "worker/kv/row_packer.h"
#include "worker/kv/row_recall.h"

namespace tidepool {

struct ContextOptions {
  CompressionSpec spec;
  std::string tenant;      // never empty
  std::string session_id;  // empty: no session
  std::string tenant_salt;
  std::string nonce;    // makes the lineage of blocks computed after a compression this sequence's own
  int query_heads = 0;  // of the model
  // By token id, of the model; outlives the context. Empty: all tokens are alike.
  absl::Span<const TokenClass> token_classes;
  std::shared_ptr<ChunkMemory> staging;  // of recalled rows; null: its own
  RepetitionWords repetition;            // for policies that have the context repeated

  SessionName session() const { return {session_id, tenant}; }
};

class Context {
 public:
  // `cache` may be null: nothing is stored, nothing recalled.
  Context(Backend* backend, BlockCache* cache, ContextOptions options);

  const ContextOptions& options() const { return options_; }
  const CompressionSpec& spec() const { return options_.spec; }
  // All tokens so far; the last few may wait for their keys and values.
  const std::vector<int32_t>& token_ids() const { return token_ids_; }
  int32_t computed() const { return computed_; }  // leading tokens whose keys and values exist
  int32_t uncomputed() const { return static_cast<int32_t>(token_ids_.size()) - computed_; }
  void AddTokens(absl::Span<const int32_t> tokens) {
    token_ids_.insert(token_ids_.end(), tokens.begin(), tokens.end());
  }

  // What a step is about: waiting tokens, or those of the repetition under way, which follow all of them.
  absl::Span<const int32_t> StepTokens(int32_t count) const {
    return (repeating() ? repetition_->waiting() : absl::MakeConstSpan(token_ids_).subspan(computed_)).first(count);
  }
  int32_t step_position() const { return repeating() ? repetition_->position() : computed_; }
  // What recall, if anything, and the remembering of queries are about in it.
  RowRecall* step_recall() { return repeating() ? nullptr : recall(); }
  // And what looks on in a decoding step.
  Compressor* step_compressor() { return compressor_.BeginStep(step_position() + 1) ? &compressor_ : nullptr; }
  // Once it has begun with one token: whether the policy will select among all rows at its end.
  bool step_selects() const { return compressor_.SelectsAfterStep(rows_, step_position() + 1); }
  QueryRing* step_ring() { return repeating() ? &*repetition_ring_ : ring(); }

  // How many of the waiting tokens the next step takes: `limit`, or 1 where every token's own queries choose what to
  // recall; no more than up to the next chunk's end where prompts are compressed in chunks.
  int32_t NextChunk(int32_t limit) const;
  // Before a step over the next `count` waiting tokens: makes room for their rows.
  void BeginStep(int32_t count);
  // Then, of a step that copies new rows (StepSlice::row_copies): where those of its one token are wanted, and the
  // bytes from one to the next. Null: they are read once it is over.
  char* RowCopies(int32_t count);
  size_t copy_stride() const { return kBlockTokens * backend_->layout().row_bytes(); }
  // After it: logs the new rows, and lets the policy's per-step rule act after a decoding step, or after the last step
  // of a chunk of a prompt that is compressed in chunks.
  void EndStep(int32_t count, bool prompt);
  // After the last step of a turn's prompt: true when the policy wants it repeated before EndPrefill, in steps as those
  // of the prompt, while repeating(). Their rows are gone at its end, their logits are of no use.
  bool BeginRepetition();
  bool repeating() const { return repetition_.has_value(); }
  // The turn's prompt is complete: the policy decides what stays.
  void EndPrefill();

  // A new context starts with the blocks of a stored prefix: values [block][layer], verified, of the exact lineage.
  void AdoptPrefix(absl::Span<const BlockKey> keys, absl::Span<const std::string> values);
  // Between turns: gives up host memory that only decoding needs; counters of usage start again.
  void Rest();

  SequenceRows& rows() { return rows_; }
  const SequenceRows& rows() const { return rows_; }
  BlockLog& log() { return log_; }
  const BlockLog& log() const { return log_; }
  Compressor& compressor() { return compressor_; }
  const Compressor& compressor() const { return compressor_; }
  QueryRing* ring() { return ring_ ? &*ring_ : nullptr; }
  const QueryRing* ring() const { return ring_ ? &*ring_ : nullptr; }
  RowRecall* recall() { return recall_ ? &*recall_ : nullptr; }
  const RowRecall* recall() const { return recall_ ? &*recall_ : nullptr; }
  bool stores() const { return cache_ != nullptr; }
  // Until Rest; null: nobody.
  void set_observer(RetentionObserver* observer);
  RetentionObserver* observer() const { return observer_; }

  int64_t revision = 0;           // of the session's manifest
  int64_t peak_pages = 0;         // since the turn began
  int64_t decode_peak_pages = 0;  // since the prompt's end

 private:
  friend class ContextCodec;

  void EndRepetitionStep(int32_t count);
  // Of a prompt that is compressed in chunks; else 0.
  int32_t ChunkTokens() const;
  // Tables of the recall index are learnt, and the compressor is told what they take.
  void LearnIndex();
  // Gives recall as many slots as the last selection left to it; rows beyond them leave.
  void SetRecallSlots();
  // Writes a block's rows into the slots that hold their positions (merged and packed rows stay as they are) and
  // indexes them.
  void InstallBlock(const std::string& value, int layer, int32_t block);

  Backend* const backend_;
  BlockCache* const cache_;
  const ContextOptions options_;
  std::vector<int32_t> token_ids_;
  int32_t computed_ = 0;
  SequenceRows rows_;
  BlockLog log_;
  Compressor compressor_;
  RowPacker packer_;
  std::optional<QueryRing> ring_;
  std::optional<Repetition> repetition_;  // under way
  std::optional<QueryRing> repetition_ring_;
  bool copied_rows_ = false;    // in the step under way
  bool reading_prompt_ = true;  // the rows that the log takes are those of a prompt
  std::optional<RowRecall> recall_;
  RetentionObserver* observer_ = nullptr;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_CONTEXT_H_
