#include "cacheservice/resp/slot_map.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "cacheservice/resp/hash_slot.h"

namespace tidepool {
namespace {

constexpr uint16_t kNobody = 0xffff;
constexpr size_t kMostEndpoints = 4096;  // of a cluster; Redis advises 1000 at most

absl::Status NotSlots(std::string_view what) {
  return absl::DataLossError(absl::StrCat("CLUSTER SLOTS: ", std::string(what)));
}

bool IsSlot(const RespReply& reply) {
  return reply.is(RespReply::Type::kInteger) && reply.integer >= 0 && reply.integer < kHashSlots;
}

}  // namespace

SlotMap::SlotMap() : owners_(kHashSlots, kNobody) {}

SlotMap SlotMap::Single(const RespEndpoint& endpoint) {
  SlotMap map;
  map.endpoints_.push_back(endpoint);
  std::fill(map.owners_.begin(), map.owners_.end(), uint16_t{0});
  return map;
}

// [[first slot, last slot, master, replica...]...], each server as [host, port, ...].
absl::StatusOr<SlotMap> SlotMap::Parse(const RespReply& reply, const RespEndpoint& asked) {
  if (!reply.is(RespReply::Type::kArray)) return NotSlots("the reply is no array");
  SlotMap map;
  map.is_cluster_ = true;
  for (const RespReply& range : reply.elements) {
    if (range.elements.size() < 3 || !IsSlot(range.elements[0]) || !IsSlot(range.elements[1]) ||
        range.elements[0].integer > range.elements[1].integer) {
      return NotSlots("an entry is no range of slots");
    }
    const std::vector<RespReply>& server = range.elements[2].elements;
    if (server.size() < 2 || !server[1].is(RespReply::Type::kInteger) || server[1].integer < 1 ||
        server[1].integer > 65'535) {
      return NotSlots("a server has no host and port");
    }
    RespEndpoint endpoint = {.host = server[0].text, .port = static_cast<int>(server[1].integer)};
    if (endpoint.host == "?") continue;  // the server does not know the name that it should tell
    if (endpoint.host.empty()) endpoint.host = asked.host;
    const uint16_t index = map.IndexOf(endpoint);
    if (index == kNobody) return NotSlots(absl::StrCat("more than ", kMostEndpoints, " servers"));
    std::fill(map.owners_.begin() + range.elements[0].integer, map.owners_.begin() + range.elements[1].integer + 1,
              index);
  }
  if (map.endpoints_.empty()) return absl::UnavailableError("CLUSTER SLOTS: no server has any slot");
  return map;
}

uint16_t SlotMap::IndexOf(const RespEndpoint& endpoint) {
  const auto found = std::find(endpoints_.begin(), endpoints_.end(), endpoint);
  if (found == endpoints_.end() && endpoints_.size() == kMostEndpoints) return kNobody;
  const size_t index = static_cast<size_t>(found - endpoints_.begin());
  if (found == endpoints_.end()) endpoints_.push_back(endpoint);
  return static_cast<uint16_t>(index);
}

const RespEndpoint* SlotMap::Owner(uint16_t slot) const {
  TIDEPOOL_CHECK(slot < kHashSlots);
  return owners_[slot] == kNobody ? nullptr : &endpoints_[owners_[slot]];
}

void SlotMap::SetOwner(uint16_t slot, const RespEndpoint& endpoint) {
  TIDEPOOL_CHECK(slot < kHashSlots);
  owners_[slot] = IndexOf(endpoint);
}

std::optional<Redirection> RedirectionOf(const RespReply& reply, const RespEndpoint& asked) {
  const bool ask = reply.IsError("ASK");
  if (!ask && !reply.IsError("MOVED")) return std::nullopt;
  const std::vector<std::string> words = absl::StrSplit(reply.text, ' ');
  int slot = 0;
  if (words.size() != 3 || !absl::SimpleAtoi(words[1], &slot) || slot < 0 || slot >= kHashSlots) return std::nullopt;
  absl::StatusOr<RespEndpoint> endpoint = ParseRespEndpoint(words[2]);
  if (!endpoint.ok() || endpoint->host == "?") return std::nullopt;
  if (endpoint->host.empty()) endpoint->host = asked.host;
  return Redirection{.ask = ask, .slot = static_cast<uint16_t>(slot), .endpoint = *std::move(endpoint)};
}

}  // namespace tidepool
