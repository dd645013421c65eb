// A cache of equal blocks under a replacement policy, for replaying a trace. The published ones are written from their
// papers, each in its own file; what the memory tier itself can use is run as it is (tier_policy.cc).
#ifndef TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_POLICY_H_
#define TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/types/span.h"

namespace tidepool {

// One block of one request.
struct Reference {
  static constexpr uint64_t kNever = ~uint64_t{0};
  uint32_t block = 0;
  uint64_t next_use = kNever;  // place in the trace of the next request's reference to it; only the optimum looks
};

class ReplayPolicy {
 public:
  virtual ~ReplayPolicy() = default;
  virtual bool Holds(uint32_t block) const = 0;
  // The blocks of a request, first to last, have been read or computed, and may be kept.
  virtual void Serve(absl::Span<const Reference> chain) = 0;
};

// A policy that sees one block at a time. The tail of a request comes first, so that it is the older part: its head is
// what other requests can share.
class BlockwisePolicy : public ReplayPolicy {
 public:
  void Serve(absl::Span<const Reference> chain) final {
    for (size_t i = chain.size(); i-- > 0;) Access(chain[i]);
  }

 private:
  virtual void Access(const Reference& reference) = 0;
};

// Each holds at most `blocks`, at least 1.
std::unique_ptr<ReplayPolicy> MakeFifo(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeLfu(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeS3Fifo(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeArc(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeOptimum(size_t blocks);
// Those of the memory tier.
std::unique_ptr<ReplayPolicy> MakeTierLru(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeTierSieve(size_t blocks);
std::unique_ptr<ReplayPolicy> MakeTierChain(size_t blocks);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_POLICY_H_
