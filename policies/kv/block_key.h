// Content address of a block: the first 128 bits of SHA-256 over (tenant salt, model fingerprint, KV type, lineage,
// parent key, token ids). Equal keys mean equal keys and values; another tenant's salt gives unrelated keys, so tenants
// cannot probe.
#ifndef TIDEPOOL_POLICIES_KV_BLOCK_KEY_H_
#define TIDEPOOL_POLICIES_KV_BLOCK_KEY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

struct BlockKey {
  std::array<uint8_t, 16> bytes{};  // all zero: the parent of a sequence's first block

  std::string ToHex() const;
  std::string_view AsString() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  friend bool operator==(const BlockKey&, const BlockKey&) = default;
  friend auto operator<=>(const BlockKey&, const BlockKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockKey& key) {
    return H::combine(std::move(h), key.bytes);
  }
};

// The lineage of KV computed with full attention over its prefix. Other lineages name the policy and the session's
// nonce, because KV computed under eviction depends on what was evicted.
inline constexpr std::string_view kExactLineage = "exact";

// Key of the block that holds `tokens` (1 to kBlockTokens of them) after the block `parent`.
BlockKey ChildBlockKey(std::string_view tenant_salt, const KvLayout& layout, std::string_view lineage,
                       const BlockKey& parent, absl::Span<const int32_t> tokens);

// Keys of the full blocks of a prompt's first `most_tokens` tokens, computed with full attention: what requests share.
std::vector<BlockKey> ExactChain(std::string_view tenant_salt, const KvLayout& layout, absl::Span<const int32_t> prompt,
                                 size_t most_tokens);

// The salt of one of several tenants of a worker: of `secret`, which only the operator's workers have, and its name.
std::string SaltOfTenant(std::string_view secret, std::string_view tenant);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_KV_BLOCK_KEY_H_
