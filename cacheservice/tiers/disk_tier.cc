#include "cacheservice/tiers/disk_tier.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/tiers/disk_records.h"

namespace tidepool {
namespace {

constexpr std::string_view kFirstSequenceKey = "blocks.first_sequence";
constexpr uint64_t kMinWriteBufferBytes = uint64_t{256} << 10;
constexpr uint64_t kMaxWriteBufferBytes = uint64_t{32} << 20;
constexpr uint64_t kGroupBytes = uint64_t{4} << 20;  // of one write: more waits for the next
constexpr uint64_t kUnflushedBuffers = 4;            // of write_buffer_bytes: what may not be in files yet, at most
constexpr uint64_t kNotForgotten = ~uint64_t{0};
constexpr int kAskedByNumber = 256;  // entries of a damaged index, then it is scanned again

}  // namespace

struct DiskTier::Planned {
  const DiskPut* put;
  absl::Status* result;
  DiskIndex::Location location;
};

uint64_t DiskTier::WriteBufferBytes(uint64_t disk_bytes) {
  return std::clamp(disk_bytes / 64, kMinWriteBufferBytes, kMaxWriteBufferBytes);
}

DiskTier::DiskTier(Database* database, uint64_t limit_bytes, uint64_t write_buffer_bytes, TenantTable* tenants,
                   DepartureLog* departures, TenantId owner, std::function<absl::Time()> clock)
    : database_(database),
      write_buffer_bytes_(write_buffer_bytes),
      tenants_(tenants),
      departures_(departures),
      owner_(owner),
      clock_(std::move(clock)),
      index_(limit_bytes) {
  MutexLock lock(&mutex_);
  stats_.limit_bytes = limit_bytes;
}

absl::StatusOr<std::unique_ptr<DiskTier>> DiskTier::Open(Database* database, uint64_t disk_bytes, TenantTable* tenants,
                                                         DepartureLog* departures, TenantId owner,
                                                         std::function<absl::Time()> clock) {
  const uint64_t reserve_bytes = ReserveBytes(disk_bytes);
  if (disk_bytes < 2 * reserve_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("disk_bytes ", disk_bytes, " is below ", 2 * reserve_bytes));
  }
  std::unique_ptr<DiskTier> tier(new DiskTier(database, disk_bytes - reserve_bytes, WriteBufferBytes(disk_bytes),
                                              tenants, departures, owner, std::move(clock)));
  tier->losses_forgotten_ = database->losses();
  TP_RETURN_IF_ERROR(tier->Load());
  tier->TrimFiles();
  return tier;
}

absl::Status DiskTier::Load() {
  const Database::ReadResult first = database_->Get(Family::kMeta, kFirstSequenceKey);
  if (!first.ok() && !absl::IsDataLoss(first.status())) return first.status();
  if (first.ok() && first->has_value() && (*first)->size() != kSequenceBytes) {
    return absl::DataLossError(
        absl::StrCat("disk tier: ", std::string(kFirstSequenceKey), " has ", (*first)->size(), " bytes"));
  }
  // Without the mark, entries are believed whose values are gone, until one asks for them.
  const uint64_t first_sequence = first.ok() && first->has_value() ? ReadBigEndian(**first) : 0;
  TP_RETURN_IF_ERROR(LoadIndex(first_sequence));
  MutexLock lock(&mutex_);
  trimmed_sequence_ = first_sequence;
  untrimmed_bytes_ = write_buffer_bytes_;  // look for files to drop once
  return absl::OkStatus();
}

absl::Status DiskTier::LoadIndex(uint64_t first_sequence) {
  const std::string last_key = database_->LargestKeyInFiles(Family::kBlockIndex);
  const uint64_t end = last_key.size() == kSequenceBytes ? ReadBigEndian(last_key) + 1 : 0;
  MutexLock lock(&mutex_);
  index_.SkipTo(first_sequence);
  int64_t unreadable = 0;
  const uint32_t now = Now();
  const auto add = [this, now, &unreadable](std::string_view key,
                                            std::string_view bytes) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const std::optional<DiskEntry> entry = ParseIndexEntry(bytes);
    const uint64_t sequence = key.size() == kSequenceBytes ? ReadBigEndian(key) : 0;
    if (!entry.has_value() || sequence < index_.next_sequence()) {
      ++unreadable;
      return true;
    }
    // What a crash left is in files or in the synced log by now.
    index_.Add(entry->id, {.sequence = sequence,
                           .cost_bytes = static_cast<uint32_t>(CostBytes(entry->value_bytes)),
                           .used = entry->written != 0 ? entry->written : now,
                           .durable = true,
                           .tenant = tenants_ == nullptr ? kNoTenant : tenants_->IdOf(entry->tenant)});
    return true;
  };
  absl::Status damage;
  while (true) {
    const absl::Status scanned = database_->Scan(Family::kBlockIndex, SequenceKey(index_.next_sequence()), {}, add);
    if (!scanned.ok() && !absl::IsDataLoss(scanned)) return scanned;
    if (damage.ok()) damage = scanned;
    if (index_.next_sequence() >= end) break;
    // A scan ends where the damage begins, or does not begin, and RocksDB 7.8 does not always say so: what lies behind
    // it is asked for by its number.
    for (int i = 0; i < kAskedByNumber && index_.next_sequence() < end; ++i) {
      const uint64_t sequence = index_.next_sequence();
      const std::string key = SequenceKey(sequence);
      const Database::ReadResult entry = database_->Get(Family::kBlockIndex, key);
      if (!entry.ok() && !absl::IsDataLoss(entry.status())) return entry.status();
      if (!entry.ok()) ++stats_.corrupt;
      if (damage.ok()) damage = entry.status();
      if (entry.ok() && entry->has_value()) add(key, **entry);
      index_.SkipTo(sequence + 1);
    }
  }
  if (!damage.ok()) {
    TP_LOG(Error, "cache", "disk tier: ", stats_.corrupt, " blocks are lost, the index is damaged: ", damage.message());
  }
  if (unreadable > 0) TP_LOG(Warning, "cache", "disk tier: ", unreadable, " index entries are unreadable");
  return absl::OkStatus();
}

std::vector<absl::Status> DiskTier::Put(absl::Span<const DiskPut> puts, bool durable) {
  Pending pending{.puts = puts, .durable = durable, .results = std::vector<absl::Status>(puts.size())};
  mutex_.Lock();
  waiting_.push_back(&pending);
  while (!pending.done && writing_) written_.Wait(&mutex_);
  while (!pending.done) {  // this call writes: itself, and whoever waits
    const std::vector<Pending*> group = TakeGroup();
    writing_ = true;
    mutex_.Unlock();
    WriteGroup(group);
    mutex_.Lock();
    writing_ = false;
    for (Pending* member : group) member->done = true;
    written_.SignalAll();
    while (!pending.done && writing_) written_.Wait(&mutex_);
  }
  mutex_.Unlock();
  return std::move(pending.results);
}

std::vector<DiskTier::Pending*> DiskTier::TakeGroup() {
  std::vector<Pending*> group;
  uint64_t bytes = 0;
  while (!waiting_.empty() &&
         (group.empty() || (waiting_.front()->durable == group.front()->durable && bytes < kGroupBytes))) {
    Pending* member = waiting_.front();
    waiting_.pop_front();
    for (const DiskPut& put : member->puts) bytes += put.value->size();
    group.push_back(member);
  }
  return group;
}

absl::Status DiskTier::Plan(const DiskPut& put, bool durable, uint32_t now, std::vector<Planned>* planned) {
  const uint64_t cost_bytes = CostBytes(put.value->size());
  if (cost_bytes > index_.limit_bytes() / 4) {
    ++stats_.write_failures;
    return absl::ResourceExhaustedError(absl::StrCat("block value of ", put.value->size(),
                                                     " bytes is larger than a quarter of the disk tier (",
                                                     index_.limit_bytes(), " bytes)"));
  }
  const std::optional<DiskIndex::Location> there = index_.Find(put.id);
  if (put.renews != 0) {
    if (!there.has_value() || there->sequence != put.renews) return absl::OkStatus();  // gone, or stored anew since
  } else if (there.has_value() && (there->durable || !durable) && !index_.LeavesSoon(*there)) {
    ++stats_.repeated_puts;
    index_.Use(put.id, now);
    return absl::OkStatus();
  }
  const uint64_t sequence = planned->empty() ? index_.next_sequence() : planned->back().location.sequence + 1;
  planned->push_back({.put = &put,
                      .result = nullptr,
                      .location = {.sequence = sequence,
                                   .cost_bytes = static_cast<uint32_t>(cost_bytes),
                                   .used = now,
                                   .durable = durable,
                                   .tenant = put.tenant}});
  return absl::OkStatus();
}

absl::Status DiskTier::WritePlanned(absl::Span<const Planned> planned, bool durable) {
  std::vector<std::string> bytes;  // of keys and index entries, until they are written
  bytes.reserve(3 * planned.size());
  std::vector<Mutation> mutations;
  for (const Planned& one : planned) {
    const std::string& index_key = bytes.emplace_back(SequenceKey(one.location.sequence));
    const std::string& entry =
        bytes.emplace_back(IndexEntry({.id = one.put->id,
                                       .value_bytes = static_cast<uint32_t>(one.put->value->size()),
                                       .written = one.location.used,
                                       .tenant = TenantName(one.location.tenant)}));
    const std::string& value_key = bytes.emplace_back(ValueKey(one.location.sequence, one.put->id));
    mutations.push_back({.family = Family::kBlockIndex, .key = index_key, .value = entry});
    mutations.push_back({.family = Family::kBlockValues, .key = value_key, .value = *one.put->value});
  }
  return database_->Write(mutations, durable ? Durability::kSynced : Durability::kUnlogged);
}

void DiskTier::ForgetLost() {
  if (losses_forgotten_ == database_->losses()) return;
  MutexLock one_at_a_time(&forget_mutex_);
  const uint64_t losses = database_->losses();
  if (losses_forgotten_ == losses) return;
  std::vector<DiskIndex::Recent> recent;
  {
    MutexLock lock(&mutex_);
    recent = index_.RecentVolatile(kUnflushedBuffers * (write_buffer_bytes_ + kGroupBytes));
  }
  absl::flat_hash_set<uint64_t> there;
  absl::Status scanned;
  if (!recent.empty()) {
    scanned = database_->Scan(Family::kBlockIndex, SequenceKey(recent.back().sequence), {},
                              [&there](std::string_view key, std::string_view) {
                                there.insert(ReadBigEndian(key));
                                return true;
                              });
  }
  if (!scanned.ok() && !absl::IsDataLoss(scanned)) {  // not for each question: the disk fails
    forget_again_ = true;
    losses_forgotten_ = losses;
    return;
  }
  size_t lost = 0;
  {
    MutexLock lock(&mutex_);
    for (const DiskIndex::Recent& one : recent) {
      // Where the index is damaged, who asks for the value finds out.
      if (!scanned.ok() || there.contains(one.sequence) || !index_.Forget(one.id, one.sequence)) continue;
      ++lost;
      if (departures_ != nullptr) departures_->Note(one.id.key, Departure::Reason::kDisk);
    }
  }
  if (lost > 0)
    TP_LOG(Warning, "cache", "disk tier: ", lost, " values are lost: the disk failed before they were in files");
  losses_forgotten_ = losses;
}

void DiskTier::ForgetAgain() {
  MutexLock lock(&forget_mutex_);
  losses_forgotten_ = kNotForgotten;
}

void DiskTier::WriteGroup(const std::vector<Pending*>& group) {
  if (forget_again_.exchange(false)) ForgetAgain();
  ForgetLost();
  const uint64_t losses = database_->losses();
  const bool durable = group.front()->durable;
  const uint32_t now = Now();
  std::vector<Planned> planned;
  {
    MutexLock lock(&mutex_);
    for (Pending* member : group) {
      for (size_t i = 0; i < member->puts.size(); ++i) {
        const size_t before = planned.size();
        member->results[i] = Plan(member->puts[i], durable, now, &planned);
        if (planned.size() > before) planned.back().result = &member->results[i];
      }
    }
    if (planned.empty()) return;
    ++writes_;
  }
  const absl::Status written = WritePlanned(planned, durable);
  bool trim = false;
  {
    MutexLock lock(&mutex_);
    const uint64_t bytes_before = index_.bytes();
    uint64_t added_bytes = 0;
    for (const Planned& one : planned) {
      *one.result = written;
      if (!written.ok()) {
        ++stats_.write_failures;
        continue;
      }
      added_bytes += one.location.cost_bytes;
      stats_.evictions += index_.Add(one.put->id, one.location, [this](const BlockId& id) { NoteDropped(id); });
      ++(one.put->renews != 0 ? stats_.renewed : stats_.puts);
    }
    // What failed may be in the log all the same, and come back from there: its numbers are not given to other values.
    index_.SkipTo(planned.back().location.sequence + 1);
    untrimmed_bytes_ += bytes_before + added_bytes - index_.bytes();
    trim = untrimmed_bytes_ >= write_buffer_bytes_;
  }
  if (database_->losses() != losses) ForgetAgain();  // perhaps these: written, lost, and in the index only now
  if (trim) TrimFiles();
  if (on_write_) on_write_();
}

std::string DiskTier::TenantName(TenantId tenant) const {
  return tenants_ == nullptr ? std::string() : tenants_->NameOf(tenant);
}

void DiskTier::NoteDropped(const BlockId& id) const {
  if (owner_ != kNoTenant) tenants_->CountQuotaEvictions(owner_, 1);
  if (departures_ == nullptr) return;
  departures_->Note(id.key, owner_ == kNoTenant ? Departure::Reason::kRoom : Departure::Reason::kQuota);
}

absl::Status DiskTier::SetDiskBytes(uint64_t disk_bytes) {
  const uint64_t reserve_bytes = 8 * write_buffer_bytes_;
  if (disk_bytes < 2 * reserve_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("disk_bytes ", disk_bytes, " is below ", 2 * reserve_bytes));
  }
  {
    MutexLock lock(&mutex_);
    const uint64_t bytes_before = index_.bytes();
    stats_.limit_bytes = disk_bytes - reserve_bytes;
    stats_.evictions += index_.SetLimit(stats_.limit_bytes, [this](const BlockId& id) { NoteDropped(id); });
    untrimmed_bytes_ += bytes_before - index_.bytes();
  }
  TrimFiles();
  return absl::OkStatus();
}

void DiskTier::TrimFiles() {
  uint64_t first_sequence = 0;
  {
    MutexLock lock(&mutex_);
    first_sequence = index_.first_sequence();
    untrimmed_bytes_ = 0;
    if (first_sequence == trimmed_sequence_) return;
    trimmed_sequence_ = first_sequence;
  }
  // The mark first: files of values and of index entries end at different sequences, and an entry without its value
  // would be believed when the database is opened again.
  const std::string key = SequenceKey(first_sequence);
  const Mutation mark = {.family = Family::kMeta, .key = kFirstSequenceKey, .value = key};
  absl::Status status = database_->Write({&mark, 1}, Durability::kSynced);
  if (status.ok()) status = database_->DropFilesBelow(Family::kBlockValues, key);
  if (status.ok()) status = database_->DropFilesBelow(Family::kBlockIndex, key);
  if (!status.ok()) TP_LOG(Warning, "cache", "disk tier: old files stay for now: ", status.message());
}

std::vector<absl::StatusOr<BlockValue>> DiskTier::Get(absl::Span<const BlockId> ids) {
  return Read(ids, /*counted=*/true);
}

std::vector<absl::StatusOr<uint64_t>> DiskTier::Verify(absl::Span<const BlockId> ids) {
  std::vector<absl::StatusOr<uint64_t>> sizes;
  for (const absl::StatusOr<BlockValue>& value : Read(ids, /*counted=*/false)) {
    if (value.ok()) {
      sizes.push_back(*value == nullptr ? 0 : (*value)->size());
    } else {
      sizes.push_back(value.status());
    }
  }
  return sizes;
}

std::vector<absl::StatusOr<BlockValue>> DiskTier::Read(absl::Span<const BlockId> ids, bool counted) {
  ForgetLost();
  std::vector<absl::StatusOr<BlockValue>> values(ids.size(), BlockValue());
  for (size_t i = 0; i < ids.size(); ++i) values[i] = ReadOne(ids[i], counted);
  return values;
}

// One value after the other: RocksDB's reading of many at once copies each once more, and what was read first has left
// the processor's caches when it is verified.
absl::StatusOr<BlockValue> DiskTier::ReadOne(const BlockId& id, bool counted) {
  DiskIndex::Location at;
  {
    MutexLock lock(&mutex_);
    const std::optional<DiskIndex::Location> found = index_.Find(id);
    if (!found.has_value()) {
      stats_.misses += counted ? 1 : 0;
      return BlockValue();
    }
    at = *found;
  }
  Database::ReadResult read = std::nullopt;
  do {
    read = database_->Get(Family::kBlockValues, ValueKey(at.sequence, id));
  } while (read.ok() && !read->has_value() && MovedSince(id, at, &at));  // stored anew while we read
  return Accept(id, at, std::move(read), counted);
}

bool DiskTier::MovedSince(const BlockId& id, const DiskIndex::Location& location, DiskIndex::Location* now) const {
  MutexLock lock(&mutex_);
  const std::optional<DiskIndex::Location> found = index_.Find(id);
  if (!found.has_value() || found->sequence == location.sequence) return false;
  *now = *found;
  return true;
}

absl::StatusOr<BlockValue> DiskTier::Accept(const BlockId& id, const DiskIndex::Location& at, Database::ReadResult read,
                                            bool counted) {
  const uint32_t now = Now();
  absl::Status damage = read.status();
  if (read.ok() && read->has_value()) {
    damage = VerifyBlockValue(id, **read);
    if (damage.ok()) {
      MutexLock lock(&mutex_);
      stats_.hits += counted ? 1 : 0;
      if (counted) index_.Use(id, now);
      return std::make_shared<const std::string>(*std::move(*read));
    }
  }
  if (absl::IsUnavailable(damage)) return damage;
  if (damage.ok()) ForgetLost();  // the files may have been opened anew, without it, to read it
  bool was_there = false;
  {
    MutexLock lock(&mutex_);
    stats_.misses += counted ? 1 : 0;
    // Absent values without damage were dropped meanwhile; an index entry that is still there says it should not be
    // absent.
    was_there = index_.Forget(id, at.sequence);
    if (was_there) ++stats_.corrupt;
  }
  if (was_there && departures_ != nullptr) departures_->Note(id.key, Departure::Reason::kCorrupt);
  if (was_there) {
    TP_LOG(Warning, "cache", "disk tier: block ", id.key.ToHex(), " layer ", id.layer,
           " is lost: ", damage.ok() ? "its value is absent" : damage.message());
    // Else it is found damaged again after a restart. The value itself stays until its file is dropped: erasing it
    // would have RocksDB merge that file with another, read the damage, and refuse all writes from then on.
    const std::string index_key = SequenceKey(at.sequence);
    const Mutation erased = {.family = Family::kBlockIndex, .key = index_key, .erase = true};
    database_->Write({&erased, 1}, Durability::kUnlogged).IgnoreError();
  }
  return BlockValue();
}

DiskTier::Leaving DiskTier::ReadLeaving(uint64_t most_bytes) {
  Leaving leaving;
  std::vector<BlockId> ids;
  {
    MutexLock lock(&mutex_);
    ids = index_.LeavingNext(most_bytes, &leaving.mark);
  }
  std::vector<absl::StatusOr<BlockValue>> values = Read(ids, /*counted=*/false);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (values[i].ok() && *values[i] != nullptr) {
      leaving.values.push_back({.id = ids[i], .value = *std::move(values[i]), .tenant = kNoTenant});
    }
  }
  return leaving;
}

void DiskTier::MarkCopied(uint64_t mark) {
  MutexLock lock(&mutex_);
  index_.MarkCopied(mark);
}

DiskTier::CopyStats DiskTier::copy_stats() const {
  MutexLock lock(&mutex_);
  return {.backlog_bytes = index_.backlog_bytes(), .dropped = index_.dropped_uncopied()};
}

std::vector<BlockId> DiskTier::Ids(bool durable_only) {
  ForgetLost();
  MutexLock lock(&mutex_);
  return index_.Ids(durable_only);
}

bool DiskTier::Repeats(const BlockId& id) {
  if (losses_forgotten_ != database_->losses()) return false;  // Put finds out, and may wait for the disk
  const uint32_t now = Now();
  MutexLock lock(&mutex_);
  const std::optional<DiskIndex::Location> there = index_.Find(id);
  if (!there.has_value() || index_.LeavesSoon(*there)) return false;
  ++stats_.repeated_puts;
  index_.Use(id, now);
  return true;
}

bool DiskTier::Contains(const BlockId& id) {
  ForgetLost();
  MutexLock lock(&mutex_);
  return index_.Find(id).has_value();
}

std::optional<TenantId> DiskTier::TenantOf(const BlockId& id) {
  ForgetLost();
  MutexLock lock(&mutex_);
  const std::optional<DiskIndex::Location> found = index_.Find(id);
  if (!found.has_value()) return std::nullopt;
  return found->tenant;
}

absl::flat_hash_map<TenantId, DiskIndex::Usage> DiskTier::UsageByTenant() const {
  MutexLock lock(&mutex_);
  return index_.usage();
}

TierStats DiskTier::Stats() const {
  MutexLock lock(&mutex_);
  TierStats stats = stats_;
  stats.bytes = index_.bytes();
  stats.objects = index_.objects();
  return stats;
}

uint64_t DiskTier::writes() const {
  MutexLock lock(&mutex_);
  return writes_;
}

size_t DiskTier::index_memory_bytes() const {
  MutexLock lock(&mutex_);
  return index_.bytes_of_memory();
}

}  // namespace tidepool
