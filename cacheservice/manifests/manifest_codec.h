// The stored form of a session manifest. Two records per session, so that listing sessions reads no bodies:
//
//   head (little endian)                                         body
//     4  magic "TPMH"                                              4  magic "TPMB"
//     2  format version, 1                                         2  format version, 1
//     2  reserved, 0                                               2  reserved, 0
//     8  revision                                                  4  Checksum32 of all that follows
//     8  updated_unix_ms                                           8 + n  model_fingerprint
//     8  token count                                               8 + n  token ids, 4 bytes each
//     8  block count                                               8 + n  block keys, 16 bytes each
//     8  body bytes                                                8 + n  preset
//     4  Checksum32 of the body record                             8 + n  engine_state
//     8 + n  tenant, 8 + n  session id
//     8 + n  model fingerprint, 8 + n  preset
//     4  Checksum32 of all before
//
// A head belongs to exactly one body: body bytes and checksum are in it. Tenant and session id are in the head, so a
// record found under another key is refused.
#ifndef TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_CODEC_H_
#define TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cacheservice/api/manifest_store.h"

namespace tidepool {

inline constexpr size_t kMaxModelFingerprintBytes = 256;
inline constexpr size_t kMaxPresetBytes = 256;
inline constexpr size_t kMaxManifestTokens = size_t{4} << 20;
inline constexpr size_t kMaxManifestBlocks = size_t{4} << 20;
inline constexpr size_t kMaxEngineStateBytes = size_t{256} << 20;

// What a listing shows of a session.
struct ManifestSummary {
  std::string tenant;
  std::string session_id;
  std::string model_fingerprint;
  std::string preset;
  int64_t revision = 0;
  int64_t updated_unix_ms = 0;
  int64_t tokens = 0;
  int64_t blocks = 0;
  int64_t body_bytes = 0;
  friend bool operator==(const ManifestSummary&, const ManifestSummary&) = default;
};

struct EncodedManifest {
  std::string head;
  std::string body;
};

// InvalidArgument naming the field that is empty, too large or out of range.
absl::Status ValidateManifest(const SessionManifest& manifest);
// The manifest is valid.
EncodedManifest EncodeManifest(const SessionManifest& manifest);
// DataLoss with the reason when the record was not written by EncodeManifest.
absl::StatusOr<ManifestSummary> DecodeManifestHead(std::string_view head);
absl::StatusOr<SessionManifest> DecodeManifest(std::string_view head, std::string_view body);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_MANIFESTS_MANIFEST_CODEC_H_
