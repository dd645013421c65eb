#include "cacheservice/manifests/manifest_codec.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/limits.h"

namespace tidepool {
namespace {

constexpr uint16_t kVersion = 1;
constexpr std::string_view kHeadMagic = "TPMH", kBodyMagic = "TPMB";
constexpr size_t kPrefixBytes = 8;  // magic, version, reserved

std::string Prefix(std::string_view magic) {
  std::string prefix(magic);
  prefix.append(reinterpret_cast<const char*>(&kVersion), sizeof kVersion);
  prefix.append(2, '\0');
  return prefix;
}

absl::Status Damaged(const char* what) { return absl::DataLossError(absl::StrCat("manifest record: ", what)); }

// What follows the prefix, when it is ours.
absl::StatusOr<std::string_view> AfterPrefix(std::string_view record, std::string_view magic) {
  if (record.size() < kPrefixBytes || record.substr(0, 4) != magic) return Damaged("magic differs");
  if (record.substr(0, kPrefixBytes) != Prefix(magic)) return Damaged("unknown format version");
  return record.substr(kPrefixBytes);
}

struct Head {
  ManifestSummary summary;
  uint32_t body_checksum = 0;
};

absl::StatusOr<Head> ReadHead(std::string_view record) {
  absl::StatusOr<std::string_view> rest = AfterPrefix(record, kHeadMagic);
  if (!rest.ok()) return rest.status();
  if (rest->size() < sizeof(uint32_t)) return Damaged("it ends early");
  uint32_t checksum = 0;
  std::memcpy(&checksum, record.data() + record.size() - sizeof checksum, sizeof checksum);
  if (Checksum32(record.substr(0, record.size() - sizeof checksum)) != checksum)
    return Damaged("checksum of the head differs");
  ByteReader in(rest->substr(0, rest->size() - sizeof checksum));
  Head head;
  ManifestSummary& summary = head.summary;
  summary.revision = in.Get<int64_t>();
  summary.updated_unix_ms = in.Get<int64_t>();
  summary.tokens = in.Get<int64_t>();
  summary.blocks = in.Get<int64_t>();
  summary.body_bytes = in.Get<int64_t>();
  head.body_checksum = in.Get<uint32_t>();
  summary.tenant = std::string(in.GetBytes());
  summary.session_id = std::string(in.GetBytes());
  summary.model_fingerprint = std::string(in.GetBytes());
  summary.preset = std::string(in.GetBytes());
  if (!in.done()) return Damaged("fields of the head end early or go on");
  return head;
}

absl::Status CheckSize(const char* field, size_t size, size_t least, size_t most) {
  if (size >= least && size <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("manifest.", field, ": size ", size, " is not in ", least, " to ", most));
}

}  // namespace

absl::Status ValidateManifest(const SessionManifest& manifest) {
  absl::Status status = CheckSize("tenant", manifest.tenant.size(), 1, kMaxTenantBytes);
  if (status.ok()) status = CheckSize("session_id", manifest.session_id.size(), 1, kMaxSessionIdBytes);
  if (status.ok())
    status = CheckSize("model_fingerprint", manifest.model_fingerprint.size(), 1, kMaxModelFingerprintBytes);
  if (status.ok()) status = CheckSize("preset", manifest.preset.size(), 0, kMaxPresetBytes);
  if (status.ok()) status = CheckSize("token_ids", manifest.token_ids.size(), 0, kMaxManifestTokens);
  if (status.ok()) status = CheckSize("block_keys", manifest.block_keys.size(), 0, kMaxManifestBlocks);
  if (status.ok()) status = CheckSize("engine_state", manifest.engine_state.size(), 0, kMaxEngineStateBytes);
  if (!status.ok()) return status;
  for (const std::string* text : {&manifest.tenant, &manifest.session_id}) {
    // Zero bytes would blur the border between them in the key.
    if (text->find('\0') != std::string::npos)
      return absl::InvalidArgumentError("manifest.tenant, session_id: hold a zero byte");
  }
  if (manifest.revision < 1) {
    return absl::InvalidArgumentError(absl::StrCat("manifest.revision: ", manifest.revision, " is not at least 1"));
  }
  return absl::OkStatus();
}

EncodedManifest EncodeManifest(const SessionManifest& manifest) {
  ByteWriter fields;
  fields.PutBytes(manifest.model_fingerprint);
  fields.PutVector(manifest.token_ids);
  std::string keys;
  keys.reserve(manifest.block_keys.size() * sizeof(BlockKey::bytes));
  for (const BlockKey& key : manifest.block_keys) keys.append(key.AsString());
  fields.PutBytes(keys);
  fields.PutBytes(manifest.preset);
  fields.PutBytes(manifest.engine_state);
  const std::string body_fields = std::move(fields).Take();
  EncodedManifest encoded;
  encoded.body = Prefix(kBodyMagic);
  const uint32_t fields_checksum = Checksum32(body_fields);
  encoded.body.append(reinterpret_cast<const char*>(&fields_checksum), sizeof fields_checksum);
  encoded.body.append(body_fields);

  ByteWriter head;
  head.Put<int64_t>(manifest.revision);
  head.Put<int64_t>(manifest.updated_unix_ms);
  head.Put<int64_t>(static_cast<int64_t>(manifest.token_ids.size()));
  head.Put<int64_t>(static_cast<int64_t>(manifest.block_keys.size()));
  head.Put<int64_t>(static_cast<int64_t>(encoded.body.size()));
  head.Put<uint32_t>(Checksum32(encoded.body));
  head.PutBytes(manifest.tenant);
  head.PutBytes(manifest.session_id);
  head.PutBytes(manifest.model_fingerprint);
  head.PutBytes(manifest.preset);
  encoded.head = Prefix(kHeadMagic) + std::move(head).Take();
  const uint32_t checksum = Checksum32(encoded.head);
  encoded.head.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  return encoded;
}

absl::StatusOr<ManifestSummary> DecodeManifestHead(std::string_view head) {
  absl::StatusOr<Head> read = ReadHead(head);
  if (!read.ok()) return read.status();
  return std::move(read->summary);
}

absl::StatusOr<SessionManifest> DecodeManifest(std::string_view head_record, std::string_view body) {
  absl::StatusOr<Head> head = ReadHead(head_record);
  if (!head.ok()) return head.status();
  const ManifestSummary& summary = head->summary;
  if (static_cast<int64_t>(body.size()) != summary.body_bytes || Checksum32(body) != head->body_checksum) {
    return Damaged("the body is not the head's");
  }
  absl::StatusOr<std::string_view> rest = AfterPrefix(body, kBodyMagic);
  if (!rest.ok()) return rest.status();
  uint32_t checksum = 0;
  if (rest->size() < sizeof checksum) return Damaged("the body ends early");
  std::memcpy(&checksum, rest->data(), sizeof checksum);
  const std::string_view fields = rest->substr(sizeof checksum);
  if (Checksum32(fields) != checksum) return Damaged("checksum of the body differs");
  ByteReader in(fields);
  SessionManifest manifest;
  manifest.model_fingerprint = std::string(in.GetBytes());
  manifest.token_ids = in.GetVector<int32_t>();
  const std::string_view keys = in.GetBytes();
  manifest.preset = std::string(in.GetBytes());
  manifest.engine_state = std::string(in.GetBytes());
  const size_t key_bytes = sizeof(BlockKey::bytes);
  if (!in.done() || keys.size() % key_bytes != 0) return Damaged("fields of the body end early or go on");
  manifest.block_keys.resize(keys.size() / key_bytes);
  for (size_t i = 0; i < manifest.block_keys.size(); ++i) {
    std::memcpy(manifest.block_keys[i].bytes.data(), keys.data() + i * key_bytes, key_bytes);
  }
  if (manifest.model_fingerprint != summary.model_fingerprint || manifest.preset != summary.preset ||
      static_cast<int64_t>(manifest.token_ids.size()) != summary.tokens ||
      static_cast<int64_t>(manifest.block_keys.size()) != summary.blocks) {
    return Damaged("head and body contradict one another");
  }
  manifest.tenant = summary.tenant;
  manifest.session_id = summary.session_id;
  manifest.revision = summary.revision;
  manifest.updated_unix_ms = summary.updated_unix_ms;
  return manifest;
}

}  // namespace tidepool
