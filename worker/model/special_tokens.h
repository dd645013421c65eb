// A set of tokens that are found in a text by their literal form.
#ifndef TIDEPOOL_WORKER_MODEL_SPECIAL_TOKENS_H_
#define TIDEPOOL_WORKER_MODEL_SPECIAL_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace tidepool {

class SpecialTokens {
 public:
  SpecialTokens();
  void Add(std::string_view text, int32_t token);  // text must not be empty; the first of equal texts counts
  // Of the longest token that begins at text[at]: its length and id; length 0 when none does.
  size_t LongestAt(std::string_view text, size_t at, int32_t* token) const;

 private:
  // A trie: the edges by (node, byte), the token that ends at each node (or -1). Node 0 is the root.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::vector<int32_t> ends_;
  std::array<bool, 256> first_{};  // bytes that begin a token
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_SPECIAL_TOKENS_H_
