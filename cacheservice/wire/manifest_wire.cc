#include "cacheservice/wire/manifest_wire.h"

#include <cstring>
#include <utility>

#include "base/bytes.h"

namespace tidepool {
namespace {

constexpr uint32_t kVersion = 1;

}  // namespace

std::string ManifestToWire(const SessionManifest& manifest) {
  ByteWriter out;
  out.Put(kVersion);
  out.PutBytes(manifest.tenant);
  out.PutBytes(manifest.session_id);
  out.PutBytes(manifest.model_fingerprint);
  out.Put(manifest.revision);
  out.Put(manifest.updated_unix_ms);
  out.PutVector(manifest.token_ids);
  std::string keys;
  for (const BlockKey& key : manifest.block_keys) keys.append(key.AsString());
  out.PutBytes(keys);
  out.PutBytes(manifest.preset);
  out.PutBytes(manifest.engine_state);
  return std::move(out).Take();
}

absl::StatusOr<SessionManifest> ManifestFromWire(std::string_view bytes) {
  ByteReader in(bytes);
  if (in.Get<uint32_t>() != kVersion) return absl::DataLossError("manifest: unknown version");
  SessionManifest manifest;
  manifest.tenant = std::string(in.GetBytes());
  manifest.session_id = std::string(in.GetBytes());
  manifest.model_fingerprint = std::string(in.GetBytes());
  manifest.revision = in.Get<int64_t>();
  manifest.updated_unix_ms = in.Get<int64_t>();
  manifest.token_ids = in.GetVector<int32_t>();
  const std::string_view keys = in.GetBytes();
  const size_t key_bytes = sizeof(BlockKey::bytes);
  if (keys.size() % key_bytes != 0) return absl::DataLossError("manifest: block_keys are cut off");
  manifest.block_keys.resize(keys.size() / key_bytes);
  for (size_t i = 0; i < manifest.block_keys.size(); ++i) {
    std::memcpy(manifest.block_keys[i].bytes.data(), keys.data() + i * key_bytes, key_bytes);
  }
  manifest.preset = std::string(in.GetBytes());
  manifest.engine_state = std::string(in.GetBytes());
  if (!in.done()) return absl::DataLossError("manifest: its bytes end early or go on");
  return manifest;
}

}  // namespace tidepool
