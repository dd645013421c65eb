// Which pods of a cache service a block or a session belongs to: rendezvous (highest random weight) hashing, Thaler and
// Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM ToN 6(1), 1998. Every pod gets a score for a
// key; the highest wins. Who joins takes 1/n of the keys, who leaves gives its own away, all others stay where they
// are.
//
//   seed(pod)       = first 8 bytes, little endian, of SHA-256(name of the pod)
//   score(key, pod) = mix(mix(seed ^ key[0..8)) ^ key[8..16))         key bytes little endian
//   gate(key, pod)  = mix(score + 0x9e3779b97f4a7c15) / 2^64          independent of the score
//   mix(x)          = finaliser of splitmix64: x ^= x >> 30, x *= 0xbf58476d1ce4e5b9, x ^= x >> 27,
//                     x *= 0x94d049bb133111eb, x ^= x >> 31
//
// A pod whose weight is below 1 (slow start) takes the new blocks whose gate is below its weight: as the weight grows
// it gains blocks and never loses one. Only names count, never the order of addresses. The formulas are part of the
// protocol between workers: golden vectors in the test.
#ifndef TIDEPOOL_POLICIES_TIER_RENDEZVOUS_H_
#define TIDEPOOL_POLICIES_TIER_RENDEZVOUS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/types/span.h"
#include "policies/kv/block_key.h"

namespace tidepool {

uint64_t PodSeed(std::string_view name);
uint64_t PodScore(const BlockKey& key, uint64_t seed);
double PodGate(const BlockKey& key, uint64_t seed);  // 0 to below 1

// The place of a session's manifest, as if it were a block.
BlockKey SessionPlace(std::string_view tenant, std::string_view session_id);

// A pod that can be reached.
struct PodShare {
  uint64_t seed = 0;
  double weight = 1;      // 0 to 1: the share of its own blocks that it is given
  bool takes_new = true;  // false: it is only read from (draining, leaving)
};

inline constexpr int kMostPodChoices = 4;

// Indices of pods, best first.
struct PodChoices {
  std::array<uint16_t, kMostPodChoices> pods{};
  int count = 0;
  void Add(size_t pod);  // unless it is there, or all places are taken
  bool Contains(size_t pod) const;
};

// Where new blocks and manifests of `key` go, in order: pods that take it by weight, then those that would not yet.
// Pods that take nothing new are left out.
PodChoices PodsToWrite(const BlockKey& key, absl::Span<const PodShare> pods);

// Where `key` may be stored, in the order to ask: where a new one would go (`copies`, 1 or 2), and the `copies` + 1
// best whatever their weight. The one more had it before the best joined, or got it while one of them was away.
PodChoices PodsToRead(const BlockKey& key, absl::Span<const PodShare> pods, int copies);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_TIER_RENDEZVOUS_H_
