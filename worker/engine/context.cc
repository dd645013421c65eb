#include "worker/engine/context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "policies/kv/block_codec.h"
#include "worker/kv/device_shape.h"

namespace tidepool {
namespace {

// Queries of a repetition that are looked at together: bounds the memory of what is remembered and compared.
constexpr int32_t kRepetitionStep = 64;

BlockLogOptions LogOptions(const ContextOptions& options) {
  BlockLogOptions log;
  log.tenant = options.tenant;
  log.tenant_salt = options.tenant_salt;
  log.session_lineage = absl::StrCat(CompressionFingerprint(options.spec), "/", options.nonce);
  log.durable = !options.session_id.empty();
  return log;
}

}  // namespace

Context::Context(Backend* backend, BlockCache* cache, ContextOptions options)
    : backend_(backend),
      cache_(cache),
      options_(std::move(options)),
      rows_(&backend->pool(), backend->layout().layers, backend->layout().kv_heads),
      log_(backend->layout(), LogOptions(options_), cache),
      compressor_(backend->layout(), DeviceShapeOf(backend->layout(), options_.spec), options_.query_heads,
                  options_.spec),
      packer_(options_.spec) {
  const KvLayout& layout = backend->layout();
  const int group = options_.query_heads / layout.kv_heads;
  log_.set_parallel_for(
      [backend](int64_t count, absl::FunctionRef<void(int64_t)> body) { backend->ParallelFor(count, body); });
  compressor_.set_classes({.of_vocabulary = options_.token_classes, .token_ids = &token_ids_});
  compressor_.KeepSums(rows_);
  if (options_.spec.recall.mode != RecallMode::kOff && compressor_.compresses() && cache != nullptr) {
    recall_.emplace(layout, group, options_.spec.recall, options_.staging);
    log_.set_on_full([this](int32_t block, int layer, int kv_head, const char* rows) {
      recall_->AddBlock(block, layer, kv_head, rows, reading_prompt_);
    });
  }
  const int window = std::max(compressor_.query_window(), recall_.has_value() ? recall_->learning_queries() : 0);
  if (window > 0) ring_.emplace(layout.layers, window, options_.query_heads * layout.head_dim);
}

int32_t Context::NextChunk(int32_t limit) const {
  if (repeating()) {
    return std::min({limit, kRepetitionStep, static_cast<int32_t>(repetition_->waiting().size())});
  }
  const bool row_by_row = recall_.has_value() && recall_->slots() > 0;
  int32_t count = std::min(uncomputed(), row_by_row ? 1 : limit);
  if (compressor_.PromptChunk() > 0) count = std::min<int32_t>(count, compressor_.PromptChunk());
  // Chunks end at fixed positions, whatever else is in the batch.
  if (ChunkTokens() > 0) count = std::min(count, ChunkTokens() - computed_ % ChunkTokens());
  return count;
}

void Context::BeginStep(int32_t count) {
  rows_.Extend(step_position(), count);
  copied_rows_ = false;
}

char* Context::RowCopies(int32_t count) {
  if (!stores() || repeating() || count != 1 || !backend_->copies_new_rows()) return nullptr;
  copied_rows_ = true;
  return log_.NextRow();
}

bool Context::BeginRepetition() {
  TIDEPOOL_CHECK(!repeating() && uncomputed() == 0);
  if (!compressor_.WantsRepetition(rows_, computed_)) return false;
  repetition_.emplace(options_.repetition, token_ids_, compressor_.repeated(), compressor_.RepeatedTokens());
  repetition_ring_.emplace(rows_.layers(), kRepetitionStep, options_.query_heads * backend_->layout().head_dim);
  return true;
}

void Context::EndRepetitionStep(int32_t count) {
  peak_pages = std::max(peak_pages, rows_.total_pages());
  compressor_.AfterRepetition(*backend_, rows_, *repetition_ring_, repetition_->piece(), count);
  if (!repetition_->Advance(count)) return;
  for (int layer = 0; layer < rows_.layers(); ++layer) {
    for (int kv_head = 0; kv_head < rows_.kv_heads(); ++kv_head) {
      HeadRows& head = rows_.head(layer, kv_head);
      while (head.position(head.order().back()) >= computed_) head.Remove(head.order().back());
      if (repetition_->done()) backend_->Repack(rows_, layer, kv_head);  // gives the pages back
    }
  }
  if (!repetition_->done()) return;
  repetition_.reset();
  repetition_ring_.reset();
}

void Context::EndStep(int32_t count, bool prompt) {
  if (repeating()) return EndRepetitionStep(count);
  reading_prompt_ = prompt;
  if (stores()) {
    const bool exact = !compressor_.compressed() && !rows_.any_packed();  // computed with full attention
    for (int32_t done = 0; done < count;) {
      const int32_t part = std::min(count - done, log_.room_in_tail());
      log_.Append(absl::MakeConstSpan(token_ids_).subspan(computed_ + done, part), exact,
                  [&](int layer, int kv_head, char* out) {
                    if (copied_rows_) return;  // they are there
                    const absl::Span<const int32_t> order = rows_.head(layer, kv_head).order();
                    backend_->ReadRows(rows_, layer, kv_head, order.subspan(order.size() - count + done, part), out);
                  });
      done += part;
    }
  }
  computed_ += count;
  const int64_t pages = rows_.total_pages();
  peak_pages = std::max(peak_pages, pages);
  if (prompt) {
    compressor_.AfterPromptQueries(*backend_, rows_, ring(), count);
    if (ChunkTokens() > 0 && computed_ % ChunkTokens() == 0 && uncomputed() > 0) {
      compressor_.AtChunkEnd(*backend_, rows_, ring(), computed_, static_cast<int32_t>(token_ids_.size()));
      packer_.Settle(*backend_, rows_, computed_);
    }
    return;
  }
  decode_peak_pages = std::max(decode_peak_pages, pages);
  // Seldom: where a policy does not act at each step, rows promoted make it select anew.
  const int32_t promote_after = spec().recall.promote_after;
  if (recall_.has_value() && promote_after > 0 && computed_ % promote_after == 0 && compressor_.TakesRowsAfterStep()) {
    recall_->Promote(rows_, computed_);
  }
  compressor_.AfterStep(*backend_, rows_, ring(), computed_);
  if (recall_.has_value() && recall_->learning_overdue()) LearnIndex();
  SetRecallSlots();  // a policy that acts at every step may evict for the first time here
  packer_.Settle(*backend_, rows_, computed_);
  if (observer_ != nullptr) observer_->AfterStep(rows_, computed_);
}

void Context::EndPrefill() {
  if (recall_.has_value() && recall_->learning_queries() > 0) LearnIndex();
  if (recall_.has_value() && compressor_.TakesRowsAtPrefillEnd()) recall_->Promote(rows_, computed_);
  compressor_.AtPrefillEnd(*backend_, rows_, ring(), computed_);
  SetRecallSlots();
  if (!compressor_.decision_due()) packer_.Settle(*backend_, rows_, computed_);
  if (observer_ != nullptr) observer_->AfterPrompt(*backend_, rows_, computed_);
}

int32_t Context::ChunkTokens() const {
  return spec().prefill == PrefillMode::kChunked && compressor_.compresses() ? spec().prefill_chunk : 0;
}

void Context::LearnIndex() {
  recall_->Learn(*backend_, *ring_);
  if (spec().recall.placement == IndexPlacement::kDevice) {
    compressor_.set_index_bytes(static_cast<double>(recall_->index_table_bytes()),
                                compressor_.shape().index_bytes_per_token);
  }
}

void Context::SetRecallSlots() {
  if (!recall_.has_value() || !compressor_.compressed() || recall_->slots() == compressor_.recall_slots()) return;
  const bool fewer = compressor_.recall_slots() < recall_->slots();
  recall_->set_slots(compressor_.recall_slots());
  if (!fewer) return;
  for (int layer = 0; layer < rows_.layers(); ++layer) {
    for (int kv_head = 0; kv_head < rows_.kv_heads(); ++kv_head) {
      HeadRows& head = rows_.head(layer, kv_head);
      for (int32_t i = 0; i < head.rows() && head.recalled_rows() > recall_->slots();) {  // the oldest tokens' first
        const int32_t slot = head.order()[i];
        if (head.kind(slot) == RowKind::kRecalled) {
          head.Remove(slot);
        } else {
          ++i;
        }
      }
    }
  }
}

void Context::AdoptPrefix(absl::Span<const BlockKey> keys, absl::Span<const std::string> values) {
  const KvLayout& layout = backend_->layout();
  TIDEPOOL_CHECK(values.size() == keys.size() * layout.layers && computed_ == 0);
  log_.AdoptStored(keys, /*exact=*/true);
  computed_ = static_cast<int32_t>(keys.size()) * kBlockTokens;
  rows_.Extend(0, computed_);
  backend_->ParallelFor(layout.layers, [&](int64_t layer) {
    for (size_t block = 0; block < keys.size(); ++block) {
      InstallBlock(values[block * layout.layers + layer], static_cast<int>(layer), static_cast<int32_t>(block));
    }
  });
}

void Context::InstallBlock(const std::string& value, int layer, int32_t block) {
  const KvLayout& layout = backend_->layout();
  const absl::StatusOr<BlockView> view = BlockView::Parse(value);
  TIDEPOOL_CHECK(view.ok());  // the loader has checked it
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    HeadRows& head = rows_.head(layer, kv_head);
    for (int token = 0; token < view->tokens(); ++token) {
      const int32_t slot = head.Find(block * kBlockTokens + token);
      if (slot >= 0 && !head.merged()[slot] && !head.is_packed(slot)) {
        backend_->WriteRow(rows_, layer, kv_head, slot, view->Row(kv_head, token).data());
      }
    }
    if (recall_.has_value() && view->tokens() == kBlockTokens) {
      // Rows of one kv head lie one after another in a block value.
      recall_->AddBlock(block, layer, kv_head, view->Row(kv_head, 0).data(), /*prompt=*/true);
    }
  }
}

void Context::set_observer(RetentionObserver* observer) {
  observer_ = observer;
  compressor_.set_observer(observer);
}

void Context::Rest() {
  set_observer(nullptr);
  peak_pages = decode_peak_pages = 0;
  log_.ResetStoredBytes();
  compressor_.ResetCounters();
  if (recall_.has_value()) {
    recall_->Rest();
    recall_->ResetCounters();
  }
}

}  // namespace tidepool
