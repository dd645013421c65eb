// Any bytes as what a RESP server sends, in pieces of any size: they are replies within the limits or an error, and
// what is made of replies (topologies, redirections, heads of remote records) is refused or sound.
#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "cacheservice/resp/hash_slot.h"
#include "cacheservice/resp/reply.h"
#include "cacheservice/resp/server_url.h"
#include "cacheservice/resp/slot_map.h"
#include "cacheservice/tiers/remote_record.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool {
namespace {

constexpr RespLimits kLimits = {.reply_bytes = 4096, .elements = 256};
const RespEndpoint kAsked = {.host = "asked", .port = 1};

struct Size {
  size_t text_bytes = 0, elements = 0;
};

void Measure(const RespReply& reply, int depth, Size* size) {
  TIDEPOOL_CHECK(depth < 10);
  TIDEPOOL_CHECK(reply.elements.empty() || reply.is(RespReply::Type::kArray));
  size->text_bytes += reply.text.size();
  size->elements += reply.elements.size();
  for (const RespReply& element : reply.elements) Measure(element, depth + 1, size);
}

void UseHead(std::string_view record) {
  const BlockId id = {.key = {}, .layer = 3};
  const absl::StatusOr<RemoteHead> head = ParseRemoteHead(id, record);
  if (!head.ok()) return;
  size_t sum = 0;
  for (uint32_t piece = 0; piece < head->pieces(); ++piece) sum += head->SizeOfPiece(piece);
  TIDEPOOL_CHECK(sum == head->value_bytes && sum <= kMaxBlockValueBytes);
  TIDEPOOL_CHECK(head->first_piece.size() == head->SizeOfPiece(0));
}

void UseReply(const RespReply& reply) {
  Size size;
  Measure(reply, 0, &size);
  TIDEPOOL_CHECK(size.text_bytes <= kLimits.reply_bytes && size.elements <= kLimits.elements);
  const absl::StatusOr<SlotMap> map = SlotMap::Parse(reply, kAsked);
  if (map.ok()) {
    for (uint16_t slot = 0; slot < kHashSlots; ++slot) {
      const RespEndpoint* owner = map->Owner(slot);
      TIDEPOOL_CHECK(owner == nullptr || (owner->port >= 1 && owner->port <= 65'535 && !owner->host.empty()));
    }
  }
  const std::optional<Redirection> redirection = RedirectionOf(reply, kAsked);
  if (redirection.has_value()) {
    TIDEPOOL_CHECK(redirection->slot < kHashSlots && !redirection->endpoint.host.empty());
    SlotMap single = SlotMap::Single(kAsked);
    single.SetOwner(redirection->slot, redirection->endpoint);
    TIDEPOOL_CHECK(*single.Owner(redirection->slot) == redirection->endpoint);
  }
  UseHead(reply.text);
  HashSlot(reply.text);
}

// Returns how many replies there were; the same whatever the size of the pieces.
std::string Read(std::string_view bytes, size_t piece_bytes) {
  RespReader reader(kLimits);
  int replies = 0;
  while (!bytes.empty()) {
    if (const absl::Status fed = reader.Feed(bytes.substr(0, piece_bytes)); !fed.ok()) return "refused";
    bytes.remove_prefix(std::min(piece_bytes, bytes.size()));
    while (true) {
      const absl::StatusOr<std::optional<RespReply>> reply = reader.Next();
      if (!reply.ok()) return "refused";
      if (!reply->has_value()) break;
      UseReply(**reply);
      ++replies;
    }
  }
  return absl::StrCat(replies);
}

void RunInput(std::string_view bytes) {
  const size_t piece_bytes = bytes.empty() ? 1 : 1 + static_cast<uint8_t>(bytes[0]) % 61;
  const std::string in_pieces = Read(bytes, piece_bytes), at_once = Read(bytes, bytes.size());
  // A line without an end is cut off only where it comes in pieces.
  TIDEPOOL_CHECK(in_pieces == at_once || in_pieces == "refused");
  UseHead(bytes);
  const absl::StatusOr<RespServers> servers = ParseRespServers(bytes);
  TIDEPOOL_CHECK(!servers.ok() || !servers->endpoints.empty());
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  const BlockId id = {.key = {}, .layer = 3};
  const std::string head = EncodeRemoteHead(id, "value", kMinPieceBytes, 7);
  return {"+OK\r\n:12\r\n$-1\r\n",
          "*2\r\n*4\r\n:0\r\n:5460\r\n*4\r\n$8\r\n10.0.0.1\r\n:6379\r\n$2\r\nid\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n"
          "*3\r\n$8\r\n10.0.0.2\r\n:6379\r\n$2\r\nid\r\n*3\r\n:5461\r\n:16383\r\n*3\r\n$0\r\n\r\n:6380\r\n$2\r\nid\r\n",
          "-MOVED 3999 127.0.0.1:6381\r\n-ASK 1 :6381\r\n-ERR x\r\n",
          absl::StrCat("$", head.size(), "\r\n", head, "\r\n"),
          head,
          "rediss://user:p%40ss@host:7000,[::1]:7001,other"};
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
