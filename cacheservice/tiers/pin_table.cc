#include "cacheservice/tiers/pin_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {
namespace {

constexpr std::string_view kPrefix = "pin.";
constexpr std::string_view kEnd = "pin/";  // the first key behind all of them
constexpr uint8_t kFormat = 1;
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kBlocksAtOnce = 4;    // read together
constexpr uint64_t kDefaultShare = 4;  // of memory: a tenant without a limit may pin a fourth

std::string KeyOf(const PinName& name) {
  std::string key(kPrefix);
  key.push_back(name.is_session ? 's' : 'p');
  key.append(name.tenant);
  key.push_back('\0');
  key.append(name.name);
  return key;
}

bool ParseKey(std::string_view key, PinName* name) {
  key.remove_prefix(kPrefix.size());
  const size_t zero = key.find('\0');
  if (zero == std::string_view::npos || zero < 1 || (key[0] != 's' && key[0] != 'p')) return false;
  name->is_session = key[0] == 's';
  name->tenant = std::string(key.substr(1, zero - 1));
  name->name = std::string(key.substr(zero + 1));
  return true;
}

std::string ValueOf(absl::Span<const BlockKey> keys, absl::Time expires) {
  ByteWriter writer;
  writer.Put(kFormat);
  writer.Put<int64_t>(expires == absl::InfiniteFuture() ? 0 : absl::ToUnixMillis(expires));
  std::string value = std::move(writer).Take();
  for (const BlockKey& key : keys) value.append(key.AsString());
  return value;
}

bool ParseValue(std::string_view value, std::vector<BlockKey>* keys, absl::Time* expires) {
  ByteReader reader(value);
  const uint8_t format = reader.Get<uint8_t>();
  const int64_t unix_ms = reader.Get<int64_t>();
  if (!reader.ok() || format != kFormat || reader.left() % sizeof(BlockKey) != 0) return false;
  *expires = unix_ms == 0 ? absl::InfiniteFuture() : absl::FromUnixMillis(unix_ms);
  keys->resize(reader.left() / sizeof(BlockKey));
  if (!keys->empty()) std::memcpy(keys->data(), value.data() + (value.size() - reader.left()), reader.left());
  return true;
}

absl::Status CheckName(const PinName& name) {
  if (name.tenant.empty() || name.tenant.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tenant: ", name.tenant.size(), " characters, 1 to ", kMaxTenantBytes, " are allowed"));
  }
  const bool visible = std::all_of(name.name.begin(), name.name.end(), absl::ascii_isgraph);
  if (!name.name.empty() && name.name.size() <= kMaxNameBytes && visible &&
      name.tenant.find('\0') == std::string::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(name.is_session ? "session_id" : "name", ": '",
                                                 absl::CHexEscape(name.name), "' is not 1 to ", kMaxNameBytes,
                                                 " visible ASCII characters"));
}

}  // namespace

PinTable::PinTable(TieredStore* blocks, Database* database, std::function<absl::Time()> clock)
    : blocks_(blocks), database_(database), clock_(std::move(clock)) {}

PinTable::~PinTable() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
  MutexLock lock(&mutex_);
  for (const auto& [name, entry] : pins_) Release(entry);
}

absl::StatusOr<std::unique_ptr<PinTable>> PinTable::Open(TieredStore* blocks, Database* database,
                                                         std::function<absl::Time()> clock) {
  std::unique_ptr<PinTable> table(new PinTable(blocks, database, std::move(clock)));
  TP_RETURN_IF_ERROR(table->Load());
  table->thread_ = std::thread([table = table.get()] { table->Run(); });
  return table;
}

absl::Status PinTable::Load() {
  struct Stored {
    PinName name;
    std::vector<BlockKey> keys;
    absl::Time expires;
  };
  std::vector<Stored> all;
  absl::Status bad;
  TP_RETURN_IF_ERROR(database_->Scan(Family::kMeta, kPrefix, kEnd, [&](std::string_view key, std::string_view value) {
    Stored& stored = all.emplace_back();
    if (ParseKey(key, &stored.name) && ParseValue(value, &stored.keys, &stored.expires)) return true;
    bad = absl::DataLossError(absl::StrCat("database: the pin '", absl::CHexEscape(std::string(key)), "' is damaged"));
    return false;
  }));
  TP_RETURN_IF_ERROR(bad);
  MutexLock lock(&mutex_);
  for (Stored& stored : all) {
    // Past the limit, or gone: what can be pinned is.
    absl::StatusOr<Entry> entry = PinBlocks(stored.name, stored.keys, LimitOf(stored.name.tenant));
    if (!entry.ok()) {
      TP_LOG(Warning, "cache", "pin of ", stored.name.name, ": ", entry.status().message());
      entry = Entry{.info = {.name = stored.name,
                             .blocks = static_cast<int64_t>(stored.keys.size()),
                             .missing_blocks = static_cast<int64_t>(stored.keys.size())},
                    .keys = stored.keys,
                    .pinned = {}};
    }
    entry->info.expires = stored.expires;
    pins_[stored.name] = *std::move(entry);
  }
  return absl::OkStatus();
}

uint64_t PinTable::LimitOf(std::string_view tenant) const {
  const uint64_t quota = blocks_->QuotaOf(tenant).pinned_bytes;
  return quota != 0 ? quota : blocks_->Stats().memory.limit_bytes / kDefaultShare;
}

uint64_t PinTable::BytesOf(std::string_view tenant) const {
  uint64_t bytes = 0;
  for (const auto& [name, entry] : pins_) bytes += name.tenant == tenant ? entry.info.bytes : 0;
  return bytes;
}

absl::StatusOr<PinTable::Entry> PinTable::PinBlocks(const PinName& name, absl::Span<const BlockKey> keys,
                                                    uint64_t most_bytes) {
  Entry entry;
  entry.info.name = name;
  entry.info.blocks = static_cast<int64_t>(keys.size());
  entry.keys.assign(keys.begin(), keys.end());
  absl::Status failure;
  for (size_t first = 0; first < keys.size() && failure.ok(); first += kBlocksAtOnce) {
    std::vector<BlockId> ids;
    for (const BlockKey& key : keys.subspan(first, kBlocksAtOnce)) {
      const int layers = blocks_->CountLayers(key);
      entry.info.missing_blocks += layers == 0 ? 1 : 0;
      for (int layer = 0; layer < layers; ++layer) ids.push_back({key, layer});
    }
    // Brings them into memory, and says how large they are.
    absl::StatusOr<std::vector<BlockValue>> values = blocks_->GetMany(ids);
    failure.Update(values.status());
    for (size_t i = 0; i < ids.size() && failure.ok(); ++i) {
      if ((*values)[i] == nullptr) continue;  // dropped meanwhile
      const absl::Status pinned = blocks_->Pin(ids[i]);
      if (absl::IsNotFound(pinned)) continue;
      failure.Update(pinned);
      if (!pinned.ok()) break;
      entry.pinned.push_back(ids[i]);
      entry.info.bytes += (*values)[i]->size();
      if (entry.info.bytes > most_bytes) {
        failure = absl::ResourceExhaustedError(
            absl::StrCat("pin: more than ", most_bytes, " bytes, which is what tenant '", absl::CHexEscape(name.tenant),
                         "' may still pin; another limit: SetQuota, pinned_bytes"));
      }
    }
  }
  entry.info.objects = static_cast<int64_t>(entry.pinned.size());
  if (failure.ok() && entry.pinned.empty()) failure = absl::NotFoundError("pin: none of the blocks is stored");
  if (failure.ok()) return entry;
  Release(entry);
  return failure;
}

void PinTable::Release(const Entry& entry) {
  for (const BlockId& id : entry.pinned) blocks_->Unpin(id);
}

absl::StatusOr<PinInfo> PinTable::Pin(const PinName& name, absl::Span<const BlockKey> keys, absl::Time expires) {
  TP_RETURN_IF_ERROR(CheckName(name));
  if (keys.empty() || keys.size() > kMostBlocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("keys: ", keys.size(), " blocks, 1 to ", kMostBlocks, " are allowed"));
  }
  MutexLock lock(&mutex_);
  const auto before = pins_.find(name);
  if (before == pins_.end() && pins_.size() >= kMostPins) {
    return absl::ResourceExhaustedError(absl::StrCat("pin: ", kMostPins, " are there, more are not possible"));
  }
  // Those of the pin that is replaced are counted as free, and stay until the new one is there.
  const uint64_t others = BytesOf(name.tenant) - (before == pins_.end() ? 0 : before->second.info.bytes);
  const uint64_t limit = LimitOf(name.tenant);
  TP_ASSIGN_OR_RETURN(Entry entry, PinBlocks(name, keys, limit > others ? limit - others : 0));
  entry.info.expires = expires;
  const std::string key = KeyOf(name), value = ValueOf(keys, expires);
  const Mutation mutation = {.family = Family::kMeta, .key = key, .value = value};
  if (const absl::Status written = database_->Write({&mutation, 1}, Durability::kSynced); !written.ok()) {
    Release(entry);
    return written;
  }
  if (before != pins_.end()) Release(before->second);
  const PinInfo info = entry.info;
  pins_[name] = std::move(entry);
  changed_.SignalAll();
  return info;
}

absl::Status PinTable::Unpin(const PinName& name) {
  MutexLock lock(&mutex_);
  const auto found = pins_.find(name);
  if (found == pins_.end()) {
    return absl::NotFoundError(
        absl::StrCat(name.is_session ? "session_id" : "name", ": '", absl::CHexEscape(name.name), "' is not pinned"));
  }
  const std::string key = KeyOf(name);
  const Mutation mutation = {.family = Family::kMeta, .key = key, .value = {}, .erase = true};
  TP_RETURN_IF_ERROR(database_->Write({&mutation, 1}, Durability::kSynced));
  Release(found->second);
  pins_.erase(found);
  return absl::OkStatus();
}

std::vector<PinInfo> PinTable::List(std::string_view tenant) const {
  MutexLock lock(&mutex_);
  std::vector<PinInfo> all;
  for (const auto& [name, entry] : pins_) {
    if (tenant.empty() || name.tenant == tenant) all.push_back(entry.info);
  }
  return all;
}

void PinTable::Expire() {
  std::vector<PinName> expired;
  {
    MutexLock lock(&mutex_);
    const absl::Time now = clock_();
    for (const auto& [name, entry] : pins_) {
      if (entry.info.expires <= now) expired.push_back(name);
    }
  }
  for (const PinName& name : expired) {
    // A disk that takes no writes is asked again.
    if (const absl::Status status = Unpin(name); !status.ok() && !absl::IsNotFound(status)) {
      TP_LOG(Warning, "cache", "pin of ", name.name, " has expired and stays: ", status.message());
    }
  }
}

void PinTable::Run() {
  constexpr absl::Duration kBetweenLooks = absl::Seconds(1);  // at least, so that a failing disk is not asked at once
  MutexLock lock(&mutex_);
  while (!closing_) {
    absl::Time next = absl::InfiniteFuture();
    for (const auto& [name, entry] : pins_) next = std::min(next, entry.info.expires);
    if (next == absl::InfiniteFuture()) {
      changed_.Wait(&mutex_);
      continue;
    }
    const absl::Duration wait = std::clamp(next - clock_(), kBetweenLooks, absl::Hours(1));
    changed_.WaitUntil(&mutex_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(wait));
    if (closing_) break;
    mutex_.Unlock();
    Expire();
    mutex_.Lock();
  }
}

}  // namespace tidepool
