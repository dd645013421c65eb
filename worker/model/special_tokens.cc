#include "worker/model/special_tokens.h"

#include "base/check.h"

namespace tidepool {
namespace {

uint64_t Edge(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<uint8_t>(byte); }

}  // namespace

SpecialTokens::SpecialTokens() : ends_(1, -1) {}

void SpecialTokens::Add(std::string_view text, int32_t token) {
  TIDEPOOL_CHECK(!text.empty() && token >= 0);
  first_[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto [edge, added] = edges_.try_emplace(Edge(node, byte), static_cast<uint32_t>(ends_.size()));
    if (added) ends_.push_back(-1);
    node = edge->second;
  }
  if (ends_[node] < 0) ends_[node] = token;
}

size_t SpecialTokens::LongestAt(std::string_view text, size_t at, int32_t* token) const {
  if (at >= text.size() || !first_[static_cast<uint8_t>(text[at])]) return 0;
  size_t longest = 0;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto edge = edges_.find(Edge(node, text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (ends_[node] >= 0) {
      longest = i + 1 - at;
      *token = ends_[node];
    }
  }
  return longest;
}

}  // namespace tidepool
