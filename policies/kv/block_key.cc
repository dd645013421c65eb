#include "policies/kv/block_key.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/escaping.h"
#include "base/check.h"
#include "base/sha256.h"

namespace tidepool {

std::string BlockKey::ToHex() const {
  return absl::BytesToHexString({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

BlockKey ChildBlockKey(std::string_view tenant_salt, const KvLayout& layout, std::string_view lineage,
                       const BlockKey& parent, absl::Span<const int32_t> tokens) {
  TIDEPOOL_CHECK(!tokens.empty() && static_cast<int>(tokens.size()) <= kBlockTokens);
  Sha256 hash;
  hash.AddField("tidepool block key 1").AddField(tenant_salt).AddField(layout.model_fingerprint);
  const int32_t shape[] = {static_cast<int32_t>(layout.type), layout.layers, layout.kv_heads, layout.head_dim};
  hash.Add(shape, sizeof shape).AddField(lineage).AddField(parent.AsString());
  hash.AddField({reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(int32_t)});
  const Sha256::Digest digest = hash.Finish();
  BlockKey key;
  std::memcpy(key.bytes.data(), digest.data(), key.bytes.size());
  return key;
}

std::vector<BlockKey> ExactChain(std::string_view tenant_salt, const KvLayout& layout, absl::Span<const int32_t> prompt,
                                 size_t most_tokens) {
  std::vector<BlockKey> chain;
  most_tokens = std::min(most_tokens, prompt.size());
  for (size_t first = 0; first + kBlockTokens <= most_tokens; first += kBlockTokens) {
    chain.push_back(ChildBlockKey(tenant_salt, layout, kExactLineage, chain.empty() ? BlockKey{} : chain.back(),
                                  prompt.subspan(first, kBlockTokens)));
  }
  return chain;
}

std::string SaltOfTenant(std::string_view secret, std::string_view tenant) {
  const Sha256::Digest digest = Sha256().AddField("tidepool tenant salt 1").AddField(secret).AddField(tenant).Finish();
  return std::string(reinterpret_cast<const char*>(digest.data()), digest.size());
}

}  // namespace tidepool
