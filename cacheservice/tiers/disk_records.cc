#include "cacheservice/tiers/disk_records.h"

#include <cstring>

#include "base/limits.h"

namespace tidepool {
namespace {

constexpr size_t kKeyBytes = 16;
constexpr size_t kIdBytes = kKeyBytes + 4;
constexpr uint32_t kTimeFollows = uint32_t{1} << 31;  // of the size

void AppendBigEndian(uint64_t value, int bytes, std::string* out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

void AppendLittleEndian(uint32_t value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof value);
}

void AppendId(const BlockId& id, std::string* out) {
  out->append(id.key.AsString());
  AppendBigEndian(static_cast<uint32_t>(id.layer), 4, out);
}

}  // namespace

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<uint8_t>(c);
  return value;
}

std::string SequenceKey(uint64_t sequence) {
  std::string key;
  AppendBigEndian(sequence, kSequenceBytes, &key);
  return key;
}

std::string ValueKey(uint64_t sequence, const BlockId& id) {
  std::string key = SequenceKey(sequence);
  AppendId(id, &key);
  return key;
}

std::string IndexEntry(const DiskEntry& entry) {
  std::string bytes;
  AppendId(entry.id, &bytes);
  AppendLittleEndian(entry.value_bytes | kTimeFollows, &bytes);
  AppendLittleEndian(entry.written, &bytes);
  bytes.append(entry.tenant);
  return bytes;
}

std::optional<DiskEntry> ParseIndexEntry(std::string_view bytes) {
  DiskEntry entry;
  if (bytes.size() < kIdBytes + sizeof entry.value_bytes) return std::nullopt;
  std::memcpy(entry.id.key.bytes.data(), bytes.data(), kKeyBytes);
  entry.id.layer = static_cast<int32_t>(ReadBigEndian(bytes.substr(kKeyBytes, 4)));
  std::memcpy(&entry.value_bytes, bytes.data() + kIdBytes, sizeof entry.value_bytes);
  entry.tenant = bytes.substr(kIdBytes + sizeof entry.value_bytes);
  if ((entry.value_bytes & kTimeFollows) != 0) {
    entry.value_bytes ^= kTimeFollows;
    if (entry.tenant.size() < sizeof entry.written) return std::nullopt;
    std::memcpy(&entry.written, entry.tenant.data(), sizeof entry.written);
    entry.tenant.remove_prefix(sizeof entry.written);
  }
  if (entry.tenant.size() > kMaxTenantBytes) return std::nullopt;
  return entry;
}

}  // namespace tidepool
