#include "cacheservice/tiers/prefix_lookup.h"

#include <cstddef>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/tiers/demotion_queue.h"
#include "cacheservice/tiers/lower_tiers.h"
#include "cacheservice/tiers/memory_tier.h"

namespace tidepool {
namespace {

// A gate that is asked when it is needed, and once.
class GateAnswer {
 public:
  GateAnswer(TierGate* gate, const ReadTerms& terms) : gate_(gate), rate_(terms.compute_bytes_per_second) {}
  bool lets_through() {
    if (!asked_) left_out_ = !gate_->LetsThrough(rate_, absl::Now());
    asked_ = true;
    return !left_out_;
  }
  bool left_out() const { return left_out_; }

 private:
  TierGate* const gate_;
  const double rate_;
  bool asked_ = false, left_out_ = false;
};

// Blocks of the chain from `first` on that are on this machine.
int CountHere(const PrefixTiers& tiers, absl::Span<const BlockKey> chain, int layers, int first) {
  int end = first;
  for (; end < static_cast<int>(chain.size()); ++end) {
    for (int layer = 0; layer < layers; ++layer) {
      const BlockId id{chain[end], layer};
      if (tiers.memory->Contains(id) || tiers.queue->Find(id) != nullptr || tiers.lower->disk().Contains(id)) continue;
      return end - first;
    }
  }
  return end - first;
}

}  // namespace

PrefixHit LookUpPrefix(const PrefixTiers& tiers, absl::Span<const BlockKey> chain, int layers, const ReadTerms& terms) {
  tiers.memory->Refer(chain);
  GateAnswer disk(&tiers.lower->disk_gate(), terms), remote(&tiers.lower->remote_gate(), terms);
  // Up to the last block that the tiers here hold whole, what they miss is asked for elsewhere, all at once.
  std::vector<RemoteTier::Wanted> elsewhere;
  std::vector<int> places;  // in the chain
  int known = 0;
  bool over = false;
  for (; known < static_cast<int>(chain.size()) && !over; ++known) {
    RemoteTier::Wanted missing = {.key = chain[known], .layers = {}};
    for (int layer = 0; layer < layers && !over; ++layer) {
      const BlockId id{chain[known], layer};
      if (tiers.memory->Touch(id) || tiers.queue->Find(id) != nullptr) continue;
      if (tiers.lower->disk().Contains(id) && disk.lets_through()) continue;
      missing.layers.push_back(layer);
      over = !tiers.lower->has_remote() || !remote.lets_through();
    }
    if (over) break;
    if (missing.layers.empty()) continue;
    elsewhere.push_back(std::move(missing));
    places.push_back(known);
  }
  PrefixHit hit = {.blocks = known};
  if (!elsewhere.empty()) {
    const auto found = static_cast<size_t>(tiers.lower->remote()->CountLeading(elsewhere, terms.deadline));
    if (found < places.size()) hit.blocks = places[found];
  }
  if (disk.left_out()) {
    hit.slow_blocks = CountHere(tiers, chain, layers, hit.blocks);
    if (hit.slow_blocks > 0) tiers.lower->disk_gate().CountLeftOut();
  }
  if (remote.left_out()) tiers.lower->remote_gate().CountLeftOut();
  return hit;
}

}  // namespace tidepool
