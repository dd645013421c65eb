// What replacement costs the memory tier: a request for 32 blocks, half of them held, against a full cache of blocks of
// one value each. Time is for one block: its reference, and for the new half its insertion and a victim.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "cacheservice/tiers/memory_policy.h"

namespace tidepool {
namespace {

constexpr uint64_t kChain = 32;
constexpr uint64_t kBytesPerBlock = 1 << 20;  // gives each block 73 ghosts

void Request(benchmark::State& state, const char* name) {
  const uint64_t most = static_cast<uint64_t>(state.range(0));
  const std::unique_ptr<ReplacementPolicy> policy = MakeReplacementPolicy(name, most * kBytesPerBlock, true);
  std::vector<uint64_t> block_of(most + 1, 0);  // by slot
  std::vector<uint32_t> free;
  for (uint32_t slot = 0; slot <= most; ++slot) free.push_back(slot);
  uint64_t next_block = 1, pick = 0;
  std::vector<ChainPlace> chain(kChain);
  const auto request = [&] {
    // The chain's first half is an old one's, as long as it is held.
    const uint32_t first = static_cast<uint32_t>((pick += 7919) % most);
    std::vector<uint32_t> hits;
    for (uint32_t i = 0; i < kChain / 2; ++i) {
      const uint32_t slot = static_cast<uint32_t>((first + i) % most);
      if (block_of[slot] != 0) hits.push_back(slot);
    }
    for (size_t i = 0; i < kChain; ++i) {
      chain[i] = {.block = i < hits.size() ? block_of[hits[i]] : next_block++,
                  .parent = i == 0 ? ChainPlace::kUnknown : chain[i - 1].block};
    }
    policy->Refer(chain, static_cast<uint32_t>(kChain - hits.size()));
    for (const uint32_t slot : hits) policy->Touch(slot);
    for (size_t i = hits.size(); i < kChain; ++i) {
      const uint32_t slot = free.back();
      free.pop_back();
      block_of[slot] = chain[i].block;
      policy->Insert(slot, chain[i]);
      if (!free.empty()) continue;
      const uint32_t victim = *policy->Victim([](uint32_t) { return true; });
      policy->Remove(victim);
      block_of[victim] = 0;
      free.push_back(victim);
    }
  };
  for (uint64_t i = 0; i < 4 * most / kChain; ++i) request();
  for (auto _ : state) request();
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kChain));
}

BENCHMARK_CAPTURE(Request, chain, "chain")->Arg(1000)->Arg(30000)->Arg(300000);
BENCHMARK_CAPTURE(Request, lru, "lru")->Arg(1000)->Arg(30000)->Arg(300000);
BENCHMARK_CAPTURE(Request, sieve, "sieve")->Arg(1000)->Arg(30000)->Arg(300000);

}  // namespace
}  // namespace tidepool

BENCHMARK_MAIN();
