#include "worker/engine/context_loader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "policies/kv/block_codec.h"
#include "worker/engine/load_cost.h"

namespace tidepool {
namespace {

constexpr size_t kPartsBlocks[] = {1, 4};  // of the first parts, of two sizes: they tell latency and rate
constexpr size_t kBlocksAtOnce = LoadCost::kPartTokens / kBlockTokens;  // bounds the bytes of one fetch

}  // namespace

absl::Status ContextLoader::FetchPart(absl::Span<const BlockKey> keys, size_t first, size_t count,
                                      bool last_may_be_partial, const ReadTerms& terms,
                                      std::vector<std::string>* values) const {
  std::vector<BlockId> ids;
  for (const BlockKey& key : keys.subspan(first, count)) {
    for (int layer = 0; layer < layout_.layers; ++layer) ids.push_back({key, layer});
  }
  TP_ASSIGN_OR_RETURN(auto fetched, cache_->FetchBlocks(ids, terms));
  for (size_t i = 0; i < fetched.size(); ++i) {
    if (!fetched[i].has_value()) {
      return absl::NotFoundError(absl::StrCat("block ", ids[i].key.ToHex(), " layer ", ids[i].layer, " is not ",
                                              terms.compute_bytes_per_second > 0 ? "to be had" : "stored"));
    }
    TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(*fetched[i]));
    TP_RETURN_IF_ERROR(view.CheckLayout(layout_));
    TP_RETURN_IF_ERROR(view.VerifyRows());  // nothing is computed with what was not looked at here
    const size_t block = first + i / layout_.layers;
    const bool full = view.tokens() == kBlockTokens || (last_may_be_partial && block + 1 == keys.size());
    if (view.layer() != ids[i].layer || view.first_position() != static_cast<int32_t>(block) * kBlockTokens || !full) {
      return absl::DataLossError(
          absl::StrCat("block ", ids[i].key.ToHex(), " layer ", ids[i].layer, " holds another block"));
    }
    values->push_back(*std::move(fetched[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ContextLoader::Fetch(absl::Span<const BlockKey> keys, bool last_may_be_partial,
                                                              absl::Time deadline) const {
  std::vector<std::string> values;
  values.reserve(keys.size() * layout_.layers);
  for (size_t first = 0; first < keys.size(); first += kBlocksAtOnce) {
    const size_t count = std::min(kBlocksAtOnce, keys.size() - first);
    TP_RETURN_IF_ERROR(FetchPart(keys, first, count, last_may_be_partial, deadline, &values));
  }
  return values;
}

LoadedContext ContextLoader::LoadSession(const std::string& session_id, int64_t resident_revision) const {
  LoadedContext loaded;
  const absl::Time deadline = absl::Now() + deadline_;
  absl::StatusOr<std::optional<SessionManifest>> manifest = manifests_->Get(tenant_, session_id, deadline);
  if (!manifest.ok()) {
    loaded.status = manifest.status();
    return loaded;
  }
  if (!manifest->has_value()) return loaded;
  loaded.manifest = *std::move(manifest);
  if (loaded.manifest->model_fingerprint != layout_.model_fingerprint) {
    loaded.status = absl::FailedPreconditionError(absl::StrCat(
        "session_id: '", session_id, "' was made with another model (fingerprint ",
        loaded.manifest->model_fingerprint.substr(0, 16), ", here ", layout_.model_fingerprint.substr(0, 16), ")"));
    return loaded;
  }
  if (loaded.manifest->revision == resident_revision) {
    loaded.resident_is_current = true;
    return loaded;
  }
  absl::StatusOr<std::vector<std::string>> values =
      Fetch(loaded.manifest->block_keys, /*last_may_be_partial=*/true, deadline);
  if (values.ok()) {
    loaded.keys = loaded.manifest->block_keys;
    loaded.values = *std::move(values);
  } else if (absl::IsNotFound(values.status()) || absl::IsDataLoss(values.status())) {
    TP_LOG(Warning, "engine", "session ", session_id, " is computed again: ", values.status().message());
    loaded.blocks_missing = true;
  } else {
    loaded.status = values.status();
  }
  return loaded;
}

absl::StatusOr<int32_t> ContextLoader::StoredPrefix(absl::Span<const int32_t> prompt, int32_t most_tokens,
                                                    absl::Time deadline) const {
  const std::vector<BlockKey> chain = ExactChain(tenant_salt_, layout_, prompt, most_tokens);
  if (chain.empty()) return 0;
  const double rate = cost_->Expect({0, most_tokens}, absl::Now()).compute_bytes_per_second;
  TP_ASSIGN_OR_RETURN(const PrefixHit hit, cache_->LookupPrefix(chain, {deadline, rate}));
  const int32_t tokens = hit.blocks * kBlockTokens;
  return cost_->Expect({0, tokens}, absl::Now()).loads ? tokens : 0;
}

LoadedContext ContextLoader::LoadPrefix(absl::Span<const int32_t> prompt, int32_t most_tokens) const {
  LoadedContext loaded;
  std::vector<BlockKey> chain = ExactChain(tenant_salt_, layout_, prompt, most_tokens);
  if (chain.empty()) return loaded;
  const absl::Time deadline = absl::Now() + deadline_;
  // The service leaves tiers out that are slower than this; the whole way is weighed here.
  const double rate = cost_->Expect({0, most_tokens}, absl::Now()).compute_bytes_per_second;
  const absl::StatusOr<PrefixHit> hit = cache_->LookupPrefix(chain, {deadline, rate});
  if (!hit.ok()) return loaded;
  loaded.slow_tokens = hit->slow_blocks * kBlockTokens;
  chain.resize(hit->blocks);
  // A few blocks first: they tell what the others would take.
  size_t done = 0, part = 0;
  const LoadCost::Tokens all = {0, hit->blocks * kBlockTokens};
  const auto left = [&] { return LoadCost::Tokens{static_cast<int32_t>(done) * kBlockTokens, all.end}; };
  absl::Status status;
  const absl::Time began = absl::Now();
  const LoadCost::Verdict verdict = chain.empty() ? LoadCost::Verdict::kLoad : cost_->Begin(all, began);
  for (bool go_on = !chain.empty() && verdict != LoadCost::Verdict::kCompute; go_on;
       go_on = done < chain.size() && cost_->GoOn(left(), absl::Now())) {
    const absl::Time start = absl::Now();
    const size_t most = part < std::size(kPartsBlocks) ? kPartsBlocks[part] : kBlocksAtOnce;
    const size_t count = std::min(most, chain.size() - done);
    status = FetchPart(chain, done, count, /*last_may_be_partial=*/false,
                       {std::min(deadline, start + cost_->Patience(left())), rate}, &loaded.values);
    // Of a service that is away, or leaves out what it has said it has, nothing is learned.
    if (status.ok() || absl::IsDeadlineExceeded(status)) {
      cost_->Loaded(static_cast<int32_t>(count) * kBlockTokens, absl::Now() - start);
    }
    if (!status.ok()) break;
    done += count;
    ++part;
  }
  if (verdict == LoadCost::Verdict::kProbe) cost_->Probed(all, left().first, absl::Now() - began, absl::Now());
  if (!status.ok()) {
    TP_LOG(Warning, "engine", "of a stored prefix of ", chain.size(), " blocks ", chain.size() - done,
           " are computed again: ", status.message());
  } else {
    loaded.slow_tokens += left().count();
  }
  cost_->Refused(loaded.slow_tokens);
  chain.resize(done);
  loaded.values.resize(done * layout_.layers);
  loaded.keys = std::move(chain);
  return loaded;
}

}  // namespace tidepool
