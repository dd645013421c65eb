#include "cacheservice/replay/replay.h"

#include "absl/types/span.h"

namespace tidepool {

const std::vector<NamedPolicy>& ReplayPolicies() {
  static const std::vector<NamedPolicy> policies = {
      {"lru", MakeTierLru}, {"fifo", MakeFifo}, {"sieve", MakeTierSieve}, {"s3fifo", MakeS3Fifo},
      {"lfu", MakeLfu},     {"arc", MakeArc},   {"chain", MakeTierChain}, {"optimum", MakeOptimum},
  };
  return policies;
}

Replay::Replay(const Trace* trace) : trace_(trace), references_(trace->references()) {
  std::vector<uint64_t> next(trace->distinct_blocks(), Reference::kNever);
  size_t place = references_.size();
  for (size_t request = trace->requests(); request-- > 0;) {
    const absl::Span<const uint32_t> blocks = trace->Request(request);
    place -= blocks.size();
    for (size_t i = 0; i < blocks.size(); ++i) references_[place + i] = {blocks[i], next[blocks[i]]};
    for (size_t i = 0; i < blocks.size(); ++i) next[blocks[i]] = place + i;
  }
}

uint64_t Replay::Hits(ReplayPolicy* policy) const {
  uint64_t hits = 0;
  size_t place = 0;
  for (size_t request = 0; request < trace_->requests(); ++request) {
    const auto chain = absl::MakeConstSpan(references_).subspan(place, trace_->Request(request).size());
    for (size_t i = 0; i < chain.size() && policy->Holds(chain[i].block); ++i) ++hits;
    policy->Serve(chain);
    place += chain.size();
  }
  return hits;
}

uint64_t Replay::MostHits() const {
  std::vector<bool> seen(trace_->distinct_blocks());
  uint64_t hits = 0;
  for (size_t request = 0; request < trace_->requests(); ++request) {
    const absl::Span<const uint32_t> blocks = trace_->Request(request);
    for (size_t i = 0; i < blocks.size() && seen[blocks[i]]; ++i) ++hits;
    for (const uint32_t block : blocks) seen[block] = true;
  }
  return hits;
}

}  // namespace tidepool
