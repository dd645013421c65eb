#include "worker/engine/context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "policies/kv/block_codec.h"

namespace tidepool {
namespace {

BlockLogOptions LogOptions(const ContextOptions& options) {
  BlockLogOptions log;
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
      compressor_(backend->layout(), options_.query_heads, options_.spec) {
  const KvLayout& layout = backend->layout();
  const int group = options_.query_heads / layout.kv_heads;
  if (compressor_.keeps_column_sums()) {
    for (int layer = 0; layer < layout.layers; ++layer) {
      for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) rows_.head(layer, kv_head).KeepColumnSums(group);
    }
  }
  if (compressor_.query_window() > 0) {
    ring_.emplace(layout.layers, compressor_.query_window(), options_.query_heads * layout.head_dim);
  }
  if (options_.spec.recall.mode != RecallMode::kOff && compressor_.compresses() && cache != nullptr) {
    recall_.emplace(layout, group, options_.spec.recall);
    log_.set_on_full([this](int32_t block, int layer, int kv_head, const char* rows) {
      recall_->AddBlock(block, layer, kv_head, rows);
    });
  }
}

int32_t Context::NextChunk(int32_t limit) const {
  const bool row_by_row = recall_.has_value() && compressor_.compressed();
  return std::min(uncomputed(), row_by_row ? 1 : limit);
}

void Context::BeginStep(int32_t count) { rows_.Extend(computed_, count); }

void Context::EndStep(int32_t count, bool prompt) {
  if (stores()) {
    for (int32_t done = 0; done < count;) {
      const int32_t part = std::min(count - done, log_.room_in_tail());
      log_.Append(absl::MakeConstSpan(token_ids_).subspan(computed_ + done, part), !compressor_.compressed(),
                  [&](int layer, int kv_head, char* out) {
                    const absl::Span<const int32_t> order = rows_.head(layer, kv_head).order();
                    backend_->ReadRows(rows_, layer, kv_head, order.subspan(order.size() - count + done, part), out);
                  });
      done += part;
    }
  }
  computed_ += count;
  peak_pages = std::max(peak_pages, rows_.total_pages());
  if (prompt) return;
  compressor_.AfterStep(*backend_, rows_, ring(), computed_);
  // A policy that acts at every step may evict for the first time here.
  if (recall_.has_value() && compressor_.compressed() && recall_->slots() == 0) {
    recall_->set_slots(Compressor::RecallSlots(spec(), computed_));
  }
}

void Context::EndPrefill() {
  compressor_.AtPrefillEnd(*backend_, rows_, ring(), computed_);
  if (recall_.has_value() && compressor_.compressed()) recall_->set_slots(Compressor::RecallSlots(spec(), computed_));
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
      if (slot >= 0 && !head.merged()[slot])
        backend_->WriteRow(rows_, layer, kv_head, slot, view->Row(kv_head, token).data());
    }
    if (recall_.has_value() && view->tokens() == kBlockTokens) {
      // Rows of one kv head lie one after another in a block value.
      recall_->AddBlock(block, layer, kv_head, view->Row(kv_head, 0).data());
    }
  }
}

void Context::Rest() {
  peak_pages = 0;
  log_.ResetStoredBytes();
  compressor_.ResetCounters();
  if (recall_.has_value()) {
    recall_->Rest();
    recall_->ResetCounters();
  }
}

}  // namespace tidepool
