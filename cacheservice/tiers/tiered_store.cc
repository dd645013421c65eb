#include "cacheservice/tiers/tiered_store.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/answer_time.h"
#include "cacheservice/tiers/demotion_queue.h"
#include "cacheservice/tiers/disk_expiry.h"
#include "cacheservice/tiers/lower_tiers.h"
#include "cacheservice/tiers/memory_policy.h"
#include "cacheservice/tiers/memory_tier.h"
#include "cacheservice/tiers/prefix_lookup.h"
#include "cacheservice/tiers/remote_tier.h"
#include "cacheservice/tiers/row_gather.h"
#include "cacheservice/tiers/stored_quotas.h"
#include "cacheservice/tiers/tenant_disks.h"

namespace tidepool {
namespace {

constexpr size_t kReadBatch = 32;        // blocks read from disk between two looks at the deadline
constexpr size_t kGatherBatch = 4;       // the same for rows, whose answers have little time
constexpr size_t kGatheredAhead = 4;     // blocks in memory that the processor fetches while another's rows are copied
constexpr size_t kMaxSpareBytes = 4096;  // of a string's capacity beyond its size: memory that holds nothing
constexpr size_t kDrainBatch = 64;       // blocks
constexpr int kMaxLayers = 1024;

}  // namespace

class TieredStore::Impl {
 public:
  // What the tiers share.
  struct Common {
    TenantTable tenants;
    DepartureLog departures;
  };

  Impl(const CacheOptions& options, Database* database, std::unique_ptr<Common> common,
       std::unique_ptr<RemoteTier> remote, std::unique_ptr<TenantDisks> disk, const std::function<absl::Time()>& clock)
      : database_(database),
        common_(std::move(common)),
        remote_(std::move(remote)),
        disk_(std::move(disk)),
        lower_(disk_.get(), remote_.get(), options.slow_tier_retry),
        queue_bytes_(options.EffectiveDemotionQueueBytes()),
        queue_(disk_.get(), queue_bytes_, &common_->departures),
        memory_(
            options.memory_bytes - queue_bytes_,
            [this](const BlockId& id, const BlockValue& value, TenantId tenant) {
              if (!disk_->Repeats(id, tenant)) queue_.Push(id, value, tenant);
            },
            [policy = options.memory_policy](uint64_t limit_bytes, bool alone) {
              return MakeReplacementPolicy(policy, limit_bytes, alone);
            },
            &common_->tenants, options.disk_ttl > absl::ZeroDuration() ? clock : nullptr),
        expiry_(options.disk_ttl, disk_.get(), &memory_) {}

  std::vector<absl::StatusOr<Tier>> PutMany(std::vector<BlockPut> puts);
  std::optional<absl::StatusOr<Tier>> PutAtOnce(BlockPut* put);
  absl::StatusOr<std::vector<BlockValue>> GetMany(absl::Span<const BlockId> ids, const ReadTerms& terms, Verify verify);
  absl::StatusOr<RecalledRows> GatherRows(absl::Span<const RowSelection> selections, absl::Time deadline);
  void ObserveGather(absl::Duration took) {
    MutexLock lock(&mutex_);
    gather_seconds_.Observe(absl::ToDoubleSeconds(took));
  }
  PrefixHit LookupPrefix(absl::Span<const BlockKey> chain, int layers, const ReadTerms& terms) {
    return LookUpPrefix({.memory = &memory_, .queue = &queue_, .lower = &lower_}, chain, layers, terms);
  }
  SlowTiers SlowFor(double rate) const {
    return {.disk = lower_.disk_gate().Losing(rate), .remote = lower_.remote_gate().Losing(rate)};
  }
  BlockValue GetAtOnce(const BlockId& id) { return memory_.Contains(id) ? memory_.Get(id) : queue_.Find(id); }
  bool Contains(const BlockId& id) const {
    return memory_.Contains(id) || queue_.Find(id) != nullptr || disk_->Contains(id);
  }
  std::vector<BlockId> Ids(bool all) const;
  std::vector<BlockPlace> Places(absl::Span<const BlockKey> keys, int layers, absl::Time deadline, bool* remote_asked);
  Scrubbed Scrub(absl::Span<const BlockId> ids);
  absl::Status SetQuota(std::string_view name, const TenantQuota& quota) {
    MutexLock lock(&quotas_mutex_);
    return ChangeQuota(database_, &common_->tenants, disk_.get(), name, quota);
  }
  std::string TenantOf(const BlockId& id) const {
    const MemoryTier::Held held = memory_.Peek(id);
    return common_->tenants.NameOf(held.value != nullptr ? held.tenant : disk_->TenantOf(id).value_or(kNoTenant));
  }
  TenantQuota QuotaOf(std::string_view tenant) const {
    const TenantId id = common_->tenants.IdOf(tenant);
    return id == kNoTenant ? TenantQuota() : common_->tenants.QuotaOf(id);
  }
  std::vector<TenantStats> Tenants() const {
    return CollectTenantStats(common_->tenants, memory_.UsageByTenant(), disk_->UsageByTenant());
  }
  absl::Status SetMemoryBytes(uint64_t memory_bytes);
  absl::Status SetDiskBytes(uint64_t disk_bytes) { return disk_->SetDiskBytes(disk_bytes); }
  void ExpireUnused() { expiry_.ExpireAll(); }
  void NoteUse(absl::Span<const BlockKey> keys, absl::Time when) { disk_->Use(keys, when); }
  absl::Status Compact() { return disk_->Compact(); }
  absl::Status Pin(const BlockId& id);
  void Unpin(const BlockId& id) { memory_.Unpin(id); }
  absl::Status Drain();
  CacheStats Stats() const;

 private:
  // Puts of one kind with their places among all.
  struct Batch {
    std::vector<DiskPut> puts;
    std::vector<BlockKey> parents;
    std::vector<size_t> places;
    void Add(const BlockId& id, BlockValue value, TenantId tenant, const BlockKey& parent, size_t place) {
      puts.push_back({.id = id, .value = std::move(value), .tenant = tenant});
      parents.push_back(parent);
      places.push_back(place);
    }
  };

  void StoreDurable(const Batch& batch, std::vector<absl::StatusOr<Tier>>* results);
  void StoreVolatile(const Batch& batch, std::vector<absl::StatusOr<Tier>>* results);
  // Not verified yet.
  BlockValue FindInMemory(const BlockId& id, MemoryTier::Use use = MemoryTier::Use::kWhole);
  // Of memory; what is on its way to disk is found damaged again when it is read there.
  void DropDamaged(const BlockId& id, const absl::Status& damage);
  std::vector<absl::StatusOr<BlockValue>> ReadFromDisk(absl::Span<const BlockId> ids, const ReadTerms& terms);
  RemoteTier::Found ReadFromRemote(absl::Span<const BlockId> ids, const ReadTerms& terms);
  void Promote(const BlockId& id, const BlockValue& value, TenantId tenant);

  Database* const database_;
  const std::unique_ptr<Common> common_;
  const std::unique_ptr<RemoteTier> remote_;  // null: none
  const std::unique_ptr<TenantDisks> disk_;
  LowerTiers lower_;  // these two
  const uint64_t queue_bytes_;
  Mutex quotas_mutex_;  // one change at a time
  DemotionQueue queue_;
  MemoryTier memory_;
  DiskExpiry expiry_;
  std::atomic<uint64_t> promotions_{0};
  std::atomic<uint64_t> recalled_rows_{0}, recalled_bytes_{0}, missing_rows_{0};
  std::atomic<uint64_t> memory_corrupt_{0}, late_blocks_{0};
  mutable Mutex mutex_;
  Histogram gather_seconds_ ABSL_GUARDED_BY(mutex_){kGatherSecondsBounds};
};

std::vector<absl::StatusOr<Tier>> TieredStore::Impl::PutMany(std::vector<BlockPut> puts) {
  std::vector<absl::StatusOr<Tier>> results(puts.size(), Tier::kMemory);
  Batch durable, in_memory;
  for (size_t i = 0; i < puts.size(); ++i) {
    const absl::Status valid = CheckNewBlockValue(puts[i].id, puts[i].value);
    if (!valid.ok()) {
      results[i] = valid;
      continue;
    }
    if (puts[i].value.capacity() > puts[i].value.size() + kMaxSpareBytes) puts[i].value.shrink_to_fit();
    (puts[i].durable ? durable : in_memory)
        .Add(puts[i].id, std::make_shared<const std::string>(std::move(puts[i].value)),
             common_->tenants.IdOf(puts[i].tenant), puts[i].parent, i);
  }
  if (!durable.puts.empty()) StoreDurable(durable, &results);
  if (!in_memory.puts.empty()) StoreVolatile(in_memory, &results);
  return results;
}

std::optional<absl::StatusOr<Tier>> TieredStore::Impl::PutAtOnce(BlockPut* put) {
  if (put->durable || queue_.Busy()) return std::nullopt;
  if (absl::Status valid = CheckNewBlockValue(put->id, put->value); !valid.ok()) return valid;
  if (put->value.capacity() > put->value.size() + kMaxSpareBytes) put->value.shrink_to_fit();
  auto value = std::make_shared<std::string>(std::move(put->value));
  if (memory_.Put(put->id, value, {.parent = put->parent, .tenant = common_->tenants.IdOf(put->tenant)}) !=
      MemoryTier::PutResult::kNoRoom) {
    return Tier::kMemory;
  }
  put->value = std::move(*value);  // nobody else has it
  return std::nullopt;
}

void TieredStore::Impl::StoreDurable(const Batch& batch, std::vector<absl::StatusOr<Tier>>* results) {
  const std::vector<absl::Status> written = disk_->Put(batch.puts, /*durable=*/true);
  for (size_t i = 0; i < batch.puts.size(); ++i) {
    if (!written[i].ok()) {
      (*results)[batch.places[i]] = written[i];
      continue;
    }
    memory_.Put(batch.puts[i].id, batch.puts[i].value,
                {.parent = batch.parents[i], .tenant = batch.puts[i].tenant});  // no room there: it is on disk
    (*results)[batch.places[i]] = Tier::kDisk;
  }
}

void TieredStore::Impl::StoreVolatile(const Batch& batch, std::vector<absl::StatusOr<Tier>>* results) {
  Batch to_disk;
  for (size_t i = 0; i < batch.puts.size(); ++i) {
    const TenantId tenant = batch.puts[i].tenant;
    if (memory_.Put(batch.puts[i].id, batch.puts[i].value, {.parent = batch.parents[i], .tenant = tenant}) ==
        MemoryTier::PutResult::kNoRoom) {
      to_disk.Add(batch.puts[i].id, batch.puts[i].value, tenant, batch.parents[i], batch.places[i]);
    }
  }
  if (to_disk.puts.empty()) return;
  const std::vector<absl::Status> written = disk_->Put(to_disk.puts, /*durable=*/false);
  for (size_t i = 0; i < to_disk.puts.size(); ++i) {
    (*results)[to_disk.places[i]] = written[i].ok() ? absl::StatusOr<Tier>(Tier::kDisk) : written[i];
  }
}

void TieredStore::Impl::DropDamaged(const BlockId& id, const absl::Status& damage) {
  TP_LOG(Error, "cache", "memory tier: block ", id.key.ToHex(), " layer ", id.layer, " is lost: ", damage.message());
  ++memory_corrupt_;
  memory_.Erase(id);
  common_->departures.Note(id.key, Departure::Reason::kCorrupt);
}

BlockValue TieredStore::Impl::FindInMemory(const BlockId& id, MemoryTier::Use use) {
  BlockValue value = memory_.Get(id, use);
  return value != nullptr ? value : queue_.Find(id);
}

std::vector<absl::StatusOr<BlockValue>> TieredStore::Impl::ReadFromDisk(absl::Span<const BlockId> ids,
                                                                        const ReadTerms& terms) {
  std::vector<absl::StatusOr<BlockValue>> values = lower_.ReadDisk(ids, terms.compute_bytes_per_second);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (values[i].ok() && *values[i] != nullptr) {
      Promote(ids[i], *values[i], disk_->TenantOf(ids[i]).value_or(kNoTenant));
    }
  }
  return values;
}

RemoteTier::Found TieredStore::Impl::ReadFromRemote(absl::Span<const BlockId> ids, const ReadTerms& terms) {
  RemoteTier::Found found = lower_.ReadRemote(ids, terms);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (found.values[i] != nullptr) Promote(ids[i], found.values[i], kNoTenant);
  }
  return found;
}

void TieredStore::Impl::Promote(const BlockId& id, const BlockValue& value, TenantId tenant) {
  // A read must not wait for the writes that its promotion would cause.
  if (queue_.Busy()) return;
  if (memory_.Put(id, value, {.tenant = tenant}) == MemoryTier::PutResult::kStored) ++promotions_;
}

absl::StatusOr<std::vector<BlockValue>> TieredStore::Impl::GetMany(absl::Span<const BlockId> ids,
                                                                   const ReadTerms& terms, Verify verify) {
  std::vector<BlockValue> values(ids.size());
  std::vector<size_t> places;
  std::vector<BlockId> on_disk;
  bool any = false;
  for (size_t i = 0; i < ids.size(); ++i) {
    values[i] = FindInMemory(ids[i]);
    if (values[i] != nullptr && verify == Verify::kAll) {
      const absl::Status valid = VerifyBlockValue(ids[i], *values[i]);
      if (!valid.ok()) {
        DropDamaged(ids[i], valid);
        values[i] = nullptr;  // the disk may have it whole
      }
    }
    any = any || values[i] != nullptr;
    if (values[i] != nullptr) continue;
    places.push_back(i);
    on_disk.push_back(ids[i]);
  }
  absl::Status failure;
  for (size_t first = 0; first < on_disk.size(); first += kReadBatch) {
    if (absl::Now() >= terms.deadline) {
      late_blocks_ += on_disk.size() - first;
      break;
    }
    const auto batch = absl::MakeConstSpan(on_disk).subspan(first, kReadBatch);
    std::vector<absl::StatusOr<BlockValue>> read = ReadFromDisk(batch, terms);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!read[i].ok()) {
        failure = read[i].status();
        continue;
      }
      values[places[first + i]] = *std::move(read[i]);
      any = any || values[places[first + i]] != nullptr;
    }
  }
  if (remote_ != nullptr) {
    std::vector<BlockId> nowhere;
    places.erase(std::remove_if(places.begin(), places.end(), [&](size_t place) { return values[place] != nullptr; }),
                 places.end());
    for (const size_t place : places) nowhere.push_back(ids[place]);
    bool complete = true;
    for (size_t first = 0; first < nowhere.size() && complete; first += kReadBatch) {
      const auto batch = absl::MakeConstSpan(nowhere).subspan(first, kReadBatch);
      RemoteTier::Found found = ReadFromRemote(batch, terms);
      complete = found.complete;
      for (size_t i = 0; i < batch.size(); ++i) {
        any = any || found.values[i] != nullptr;
        values[places[first + i]] = std::move(found.values[i]);
      }
    }
  }
  if (!any && !failure.ok()) return failure;
  return values;
}

absl::StatusOr<RecalledRows> TieredStore::Impl::GatherRows(absl::Span<const RowSelection> selections,
                                                           absl::Time deadline) {
  RowGather gather(selections);
  absl::Status failure;
  std::vector<size_t> places, places_nowhere;
  std::vector<BlockId> on_disk, nowhere;
  // Damage is a miss (false); a wrong question is an error.
  auto add = [&](size_t index, const std::string& value) -> absl::StatusOr<bool> {
    const absl::Status added = gather.Add(index, value);
    if (!absl::IsDataLoss(added)) return added.ok() ? absl::StatusOr<bool>(true) : added;
    DropDamaged(gather.blocks()[index], added);
    return false;
  };
  BlockValue ahead[kGatheredAhead];
  for (size_t i = 0; i < gather.blocks().size() + kGatheredAhead; ++i) {
    BlockValue& place = ahead[i % kGatheredAhead];
    if (place != nullptr) {
      const size_t index = i - kGatheredAhead;
      TP_ASSIGN_OR_RETURN(const bool whole, add(index, *place));
      if (!whole) {  // on disk it may be
        places.push_back(index);
        on_disk.push_back(gather.blocks()[index]);
      }
    }
    place = nullptr;
    if (i >= gather.blocks().size()) continue;
    place = FindInMemory(gather.blocks()[i], MemoryTier::Use::kRows);
    if (place != nullptr) {
      gather.Prefetch(i, *place);
    } else {
      places.push_back(i);
      on_disk.push_back(gather.blocks()[i]);
    }
  }
  AnswerTime time(deadline);
  for (size_t first = 0; first < on_disk.size(); first += kGatherBatch) {
    if (!time.ForMore()) {
      failure = absl::DeadlineExceededError("gather: the deadline leaves no time to read the disk");
      late_blocks_ += on_disk.size() - first;
      break;
    }
    const auto batch = absl::MakeConstSpan(on_disk).subspan(first, kGatherBatch);
    const std::vector<absl::StatusOr<BlockValue>> read = ReadFromDisk(batch, deadline);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (!read[i].ok()) {
        failure = read[i].status();
      } else if (*read[i] != nullptr) {
        TP_RETURN_IF_ERROR(add(places[first + i], **read[i]).status());
        continue;
      }
      places_nowhere.push_back(places[first + i]);
      nowhere.push_back(batch[i]);
    }
  }
  for (size_t first = 0; remote_ != nullptr && first < nowhere.size(); first += kReadBatch) {
    const auto batch = absl::MakeConstSpan(nowhere).subspan(first, kReadBatch);
    const RemoteTier::Found found = ReadFromRemote(batch, deadline);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (found.values[i] != nullptr) TP_RETURN_IF_ERROR(add(places_nowhere[first + i], *found.values[i]).status());
    }
    if (found.complete) continue;
    failure = absl::UnavailableError("gather: the remote tier could not be asked");
    break;
  }
  const int64_t found = gather.found_rows(), wanted = gather.wanted_rows();
  missing_rows_ += wanted - found;
  if (found == 0 && !failure.ok()) return failure;
  RecalledRows recalled = std::move(gather).Finish();
  recalled.complete = failure.ok();
  recalled_rows_ += found;
  recalled_bytes_ += recalled.rows.size();
  return recalled;
}

std::vector<BlockId> TieredStore::Impl::Ids(bool all) const {
  std::vector<BlockId> ids = disk_->Ids(/*durable_only=*/!all);
  const absl::flat_hash_set<BlockId> on_disk(ids.begin(), ids.end());
  for (const BlockId& id : memory_.Ids(/*pinned_only=*/!all)) {
    if (!on_disk.contains(id)) ids.push_back(id);
  }
  return ids;
}

absl::Status TieredStore::Impl::Pin(const BlockId& id) {
  const auto too_much = [this] {
    return absl::ResourceExhaustedError(absl::StrCat("pinned blocks would take more than half of the memory tier (",
                                                     memory_.Stats().limit_bytes, " bytes)"));
  };
  switch (memory_.Pin(id)) {
    case MemoryTier::PinResult::kPinned: return absl::OkStatus();
    case MemoryTier::PinResult::kTooMuchPinned: return too_much();
    case MemoryTier::PinResult::kAbsent: break;
  }
  TP_ASSIGN_OR_RETURN(const std::vector<BlockValue> values, GetMany({&id, 1}, absl::InfiniteFuture(), Verify::kAll));
  if (values[0] == nullptr) {
    return absl::NotFoundError(absl::StrCat("block ", id.key.ToHex(), " layer ", id.layer, " is not stored"));
  }
  const TenantId tenant = disk_->TenantOf(id).value_or(kNoTenant);
  if (memory_.Put(id, values[0], {.pin = true, .tenant = tenant}) == MemoryTier::PutResult::kNoRoom) return too_much();
  return absl::OkStatus();
}

std::vector<BlockPlace> TieredStore::Impl::Places(absl::Span<const BlockKey> keys, int layers, absl::Time deadline,
                                                  bool* remote_asked) {
  return FindBlockPlaces({.memory = &memory_,
                          .queue = &queue_,
                          .disk = disk_.get(),
                          .remote = remote_.get(),
                          .tenants = &common_->tenants,
                          .departures = &common_->departures},
                         keys, layers, deadline, remote_asked);
}

TieredStore::Scrubbed TieredStore::Impl::Scrub(absl::Span<const BlockId> ids) {
  Scrubbed result;
  for (const BlockId& id : ids) {
    const BlockValue value = memory_.Peek(id).value;
    if (value == nullptr) continue;
    result.bytes += value->size();
    const absl::Status valid = VerifyBlockValue(id, *value);
    if (valid.ok()) continue;
    DropDamaged(id, valid);
    ++result.corrupt;
  }
  const uint64_t corrupt_before = disk_->Stats().corrupt;
  for (const absl::StatusOr<uint64_t>& read : disk_->Verify(ids)) {
    result.bytes += read.value_or(0);
    if (!read.ok()) ++result.unreadable;
  }
  // A reader that finds a damaged value at the same time counts it here, too: it was among these, or soon is.
  result.corrupt += disk_->Stats().corrupt - corrupt_before;
  return result;
}

absl::Status TieredStore::Impl::SetMemoryBytes(uint64_t memory_bytes) {
  CacheOptions options;
  options.data_dir = "unused";
  options.memory_bytes = memory_bytes;
  TP_RETURN_IF_ERROR(options.Validate());
  if (memory_bytes / 2 < queue_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("memory_bytes ", memory_bytes, " is below ", 2 * queue_bytes_,
                                                   ", twice what waits for the disk at most"));
  }
  if (memory_.SetLimit(memory_bytes - queue_bytes_)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("memory_bytes ", memory_bytes, ": ", memory_.pinned_bytes(),
                                                    " bytes are pinned, too much for that"));
}

absl::Status TieredStore::Impl::Drain() {
  absl::Status first_failure;
  const uint64_t losses = disk_->losses();
  const std::vector<BlockId> ids = memory_.Ids();
  for (size_t first = 0; first < ids.size(); first += kDrainBatch) {
    std::vector<DiskPut> batch;
    for (const BlockId& id : absl::MakeConstSpan(ids).subspan(first, kDrainBatch)) {
      if (disk_->Contains(id)) continue;
      BlockValue value = FindInMemory(id);
      if (value == nullptr) continue;
      batch.push_back({.id = id, .value = std::move(value), .tenant = memory_.Peek(id).tenant});
    }
    if (batch.empty()) continue;
    for (const absl::Status& status : disk_->Put(batch, /*durable=*/false)) first_failure.Update(status);
  }
  queue_.Drain();
  first_failure.Update(disk_->Flush());
  if (disk_->losses() == losses) return first_failure;
  // The disk failed and works again: what was not in files yet is lost. (Else what is not there has made room.)
  const auto lost = std::count_if(ids.begin(), ids.end(),
                                  [this](const BlockId& id) { return memory_.Contains(id) && !disk_->Contains(id); });
  if (lost > 0) first_failure.Update(absl::ResourceExhaustedError(absl::StrCat(lost, " values are not on disk")));
  return first_failure;
}

CacheStats TieredStore::Impl::Stats() const {
  CacheStats stats;
  stats.memory = memory_.Stats();
  stats.memory.corrupt = memory_corrupt_;
  stats.disk = disk_->Stats();
  stats.disk_reads = lower_.disk_gate().Stats(absl::Now());
  if (remote_ != nullptr) {
    stats.remote = remote_->Stats();
    stats.remote_reads = lower_.remote_gate().Stats(absl::Now());
    const DiskTier::CopyStats copied = disk_->copy_stats();
    stats.remote.backlog_bytes = copied.backlog_bytes;
    stats.remote.dropped = copied.dropped;
  }
  stats.pinned_objects = memory_.pinned_objects();
  stats.pinned_bytes = memory_.pinned_bytes();
  const DemotionQueue::Stats queue = queue_.stats();
  stats.demotions = queue.written;
  stats.dropped = queue.lost;
  stats.demotion_queue_bytes = queue.bytes;
  stats.promotions = promotions_;
  stats.recalled_rows = recalled_rows_;
  stats.recalled_bytes = recalled_bytes_;
  stats.missing_rows = missing_rows_;
  stats.late_blocks = late_blocks_;
  stats.slow_blocks = lower_.slow_values();
  stats.disk_used_bytes = disk_->UsedBytes();
  stats.disk_writable = disk_->writable();
  MutexLock lock(&mutex_);
  stats.gather_seconds = gather_seconds_;
  return stats;
}

TieredStore::TieredStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TieredStore::~TieredStore() = default;

absl::StatusOr<std::unique_ptr<TieredStore>> TieredStore::Open(const CacheOptions& options, Database* database,
                                                               std::function<absl::Time()> clock) {
  TP_RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<RemoteTier> remote;
  if (options.remote.enabled()) {
    TP_ASSIGN_OR_RETURN(remote, RemoteTier::Open(options.remote));
  }
  auto common = std::make_unique<Impl::Common>();
  TP_RETURN_IF_ERROR(LoadQuotas(*database, &common->tenants));
  TP_ASSIGN_OR_RETURN(
      std::unique_ptr<TenantDisks> disk,
      TenantDisks::Open({.data_dir = options.data_dir, .disk_bytes = options.disk_bytes, .clock = clock}, database,
                        &common->tenants, &common->departures, remote.get()));
  return std::unique_ptr<TieredStore>(new TieredStore(
      std::make_unique<Impl>(options, database, std::move(common), std::move(remote), std::move(disk), clock)));
}

absl::StatusOr<Tier> TieredStore::Put(const BlockId& id, std::string value, bool durable) {
  std::vector<BlockPut> puts(1);
  puts[0] = {.id = id, .value = std::move(value), .durable = durable};
  return std::move(PutMany(std::move(puts))[0]);
}

std::vector<absl::StatusOr<Tier>> TieredStore::PutMany(std::vector<BlockPut> puts) {
  return impl_->PutMany(std::move(puts));
}

std::optional<absl::StatusOr<Tier>> TieredStore::PutAtOnce(BlockPut* put) { return impl_->PutAtOnce(put); }

absl::StatusOr<BlockValue> TieredStore::Get(const BlockId& id) {
  TP_ASSIGN_OR_RETURN(std::vector<BlockValue> values, impl_->GetMany({&id, 1}, absl::InfiniteFuture(), Verify::kAll));
  return std::move(values[0]);
}

BlockValue TieredStore::GetAtOnce(const BlockId& id) { return impl_->GetAtOnce(id); }

absl::StatusOr<std::vector<BlockValue>> TieredStore::GetMany(absl::Span<const BlockId> ids, const ReadTerms& terms,
                                                             Verify verify) {
  return impl_->GetMany(ids, terms, verify);
}

absl::StatusOr<RecalledRows> TieredStore::GatherRows(absl::Span<const RowSelection> selections, absl::Time deadline) {
  const absl::Time start = absl::Now();
  absl::StatusOr<RecalledRows> rows = impl_->GatherRows(selections, deadline);
  impl_->ObserveGather(absl::Now() - start);
  return rows;
}

PrefixHit TieredStore::LookupPrefix(absl::Span<const BlockKey> chain, int layers, const ReadTerms& terms) {
  return impl_->LookupPrefix(chain, layers, terms);
}

TieredStore::SlowTiers TieredStore::SlowFor(double rate) const { return impl_->SlowFor(rate); }
bool TieredStore::Contains(const BlockId& id) const { return impl_->Contains(id); }
std::vector<BlockId> TieredStore::Ids(bool all) const { return impl_->Ids(all); }
std::vector<BlockPlace> TieredStore::Places(absl::Span<const BlockKey> keys, int layers, absl::Time deadline,
                                            bool* remote_asked) {
  return impl_->Places(keys, layers, deadline, remote_asked);
}

std::string TieredStore::TenantOf(const BlockId& id) const { return impl_->TenantOf(id); }

int TieredStore::CountLayers(const BlockKey& key) const {
  int layers = 0;
  while (layers < kMaxLayers && impl_->Contains({key, layers})) ++layers;
  return layers;
}

TieredStore::Scrubbed TieredStore::Scrub(absl::Span<const BlockId> ids) { return impl_->Scrub(ids); }
absl::Status TieredStore::SetQuota(std::string_view tenant, const TenantQuota& quota) {
  return impl_->SetQuota(tenant, quota);
}
TenantQuota TieredStore::QuotaOf(std::string_view tenant) const { return impl_->QuotaOf(tenant); }
std::vector<TenantStats> TieredStore::Tenants() const { return impl_->Tenants(); }
absl::Status TieredStore::SetMemoryBytes(uint64_t memory_bytes) { return impl_->SetMemoryBytes(memory_bytes); }
absl::Status TieredStore::SetDiskBytes(uint64_t disk_bytes) { return impl_->SetDiskBytes(disk_bytes); }
void TieredStore::ExpireUnused() { impl_->ExpireUnused(); }
void TieredStore::NoteUse(absl::Span<const BlockKey> keys, absl::Time when) { impl_->NoteUse(keys, when); }
absl::Status TieredStore::Compact() { return impl_->Compact(); }
absl::Status TieredStore::Pin(const BlockId& id) { return impl_->Pin(id); }
void TieredStore::Unpin(const BlockId& id) { impl_->Unpin(id); }
absl::Status TieredStore::Drain() { return impl_->Drain(); }
CacheStats TieredStore::Stats() const { return impl_->Stats(); }

}  // namespace tidepool
