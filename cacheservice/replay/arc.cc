// ARC (Megiddo and Modha, FAST 2003, figure 4): two lists of recency, for what was referenced once (T1) and more often
// (T2), each with its ghosts (B1, B2); hits on ghosts move the share that T1 may have.
#include <algorithm>
#include <array>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/replay/replay_policy.h"

namespace tidepool {
namespace {

class Arc final : public BlockwisePolicy {
 public:
  explicit Arc(size_t blocks) : c_(blocks) {}
  bool Holds(uint32_t block) const override {
    const auto found = places_.find(block);
    return found != places_.end() && (found->second.list == kT1 || found->second.list == kT2);
  }

 private:
  enum List { kT1, kT2, kB1, kB2 };
  struct Place {
    List list;
    std::list<uint32_t>::iterator at;
  };

  size_t Size(List list) const { return lists_[list].size(); }

  void MoveToFront(List to, uint32_t block) {
    Place& place = places_[block];
    lists_[to].splice(lists_[to].begin(), lists_[place.list], place.at);
    place.list = to;
  }

  void DropOldest(List list) {
    places_.erase(lists_[list].back());
    lists_[list].pop_back();
  }

  // The subroutine REPLACE(x, p).
  void Replace(bool in_b2) {
    const bool from_t1 = Size(kT1) >= 1 && ((in_b2 && Size(kT1) == p_) || Size(kT1) > p_);
    if (from_t1) {
      MoveToFront(kB1, lists_[kT1].back());
    } else {
      MoveToFront(kB2, lists_[kT2].back());
    }
  }

  void Access(const Reference& reference) override {
    const uint32_t block = reference.block;
    const auto found = places_.find(block);
    if (found != places_.end()) {
      const List list = found->second.list;
      if (list == kB1) {
        p_ = std::min(c_, p_ + std::max<size_t>(1, Size(kB2) / Size(kB1)));
        Replace(false);
      } else if (list == kB2) {
        const size_t step = std::max<size_t>(1, Size(kB1) / Size(kB2));
        p_ -= std::min(p_, step);
        Replace(true);
      }
      MoveToFront(kT2, block);
      return;
    }
    const size_t l1 = Size(kT1) + Size(kB1);
    const size_t all = l1 + Size(kT2) + Size(kB2);
    if (l1 == c_) {
      if (Size(kT1) < c_) {
        DropOldest(kB1);
        Replace(false);
      } else {
        DropOldest(kT1);
      }
    } else if (all >= c_) {
      if (all == 2 * c_) DropOldest(kB2);
      Replace(false);
    }
    lists_[kT1].push_front(block);
    places_[block] = {kT1, lists_[kT1].begin()};
  }

  const size_t c_;
  size_t p_ = 0;
  std::array<std::list<uint32_t>, 4> lists_;  // the most recent first
  absl::flat_hash_map<uint32_t, Place> places_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeArc(size_t blocks) { return std::make_unique<Arc>(blocks); }

}  // namespace tidepool
