// Any bytes as the two records of a stored session: refused with DataLoss, or a valid manifest that is written as it
// was read.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/checksum.h"
#include "cacheservice/manifests/manifest_codec.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool {
namespace {

constexpr size_t kBodyPrefixBytes = 12, kChecksumBytes = 4;

void Check(std::string_view head, std::string_view body) {
  const absl::StatusOr<ManifestSummary> summary = DecodeManifestHead(head);
  TIDEPOOL_CHECK(summary.ok() || summary.status().code() == absl::StatusCode::kDataLoss);
  const absl::StatusOr<SessionManifest> manifest = DecodeManifest(head, body);
  if (!manifest.ok()) {
    TIDEPOOL_CHECK(manifest.status().code() == absl::StatusCode::kDataLoss);
    return;
  }
  TIDEPOOL_CHECK(summary.ok() && summary->tenant == manifest->tenant && summary->session_id == manifest->session_id);
  TIDEPOOL_CHECK(summary->tokens == static_cast<int64_t>(manifest->token_ids.size()));
  TIDEPOOL_CHECK(summary->blocks == static_cast<int64_t>(manifest->block_keys.size()));
  if (!ValidateManifest(*manifest).ok()) return;  // EncodeManifest takes valid ones
  const EncodedManifest again = EncodeManifest(*manifest);
  TIDEPOOL_CHECK(again.head == head && again.body == body);
}

void Store(uint32_t checksum, size_t at, std::string* record) {
  std::memcpy(record->data() + at, &checksum, sizeof checksum);
}

// The first two bytes say how long the head is. Also with checksums that are right, so that mutations get past them.
void RunInput(std::string_view bytes) {
  if (bytes.size() < 2) return Check(bytes, {});
  const size_t head_bytes = static_cast<uint8_t>(bytes[0]) | static_cast<size_t>(static_cast<uint8_t>(bytes[1])) << 8;
  bytes.remove_prefix(2);
  std::string head(bytes.substr(0, std::min(head_bytes, bytes.size())));
  std::string body(bytes.substr(head.size()));
  Check(head, body);
  constexpr size_t kBodyChecksumAt = 8 + 5 * 8;  // in the head
  if (body.size() < kBodyPrefixBytes || head.size() < kBodyChecksumAt + 2 * kChecksumBytes) return;
  Store(Checksum32(std::string_view(body).substr(kBodyPrefixBytes)), kBodyPrefixBytes - kChecksumBytes, &body);
  const uint64_t body_bytes = body.size();
  std::memcpy(head.data() + kBodyChecksumAt - sizeof body_bytes, &body_bytes, sizeof body_bytes);
  Store(Checksum32(body), kBodyChecksumAt, &head);
  const size_t end = head.size() - kChecksumBytes;
  Store(Checksum32(std::string_view(head).substr(0, end)), end, &head);
  Check(head, body);
}

std::string Seed(const SessionManifest& manifest) {
  const EncodedManifest encoded = EncodeManifest(manifest);
  std::string seed = {static_cast<char>(encoded.head.size() & 0xff), static_cast<char>(encoded.head.size() >> 8)};
  return seed + encoded.head + encoded.body;
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  SessionManifest small = {.tenant = "t", .session_id = "s", .model_fingerprint = "m", .revision = 1};
  small.token_ids = {1};
  SessionManifest full = small;
  full.token_ids.assign(130, 7);
  full.block_keys.resize(3);
  full.preset = "snapkv";
  full.engine_state = std::string("state\0state", 11);
  std::vector<std::string> seeds;
  for (const SessionManifest& manifest : {small, full}) {
    TIDEPOOL_CHECK(ValidateManifest(manifest).ok());
    seeds.push_back(Seed(manifest));
  }
  return seeds;
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
