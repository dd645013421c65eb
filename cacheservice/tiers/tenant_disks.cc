#include "cacheservice/tiers/tenant_disks.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/copy_ahead.h"

namespace tidepool {

// Shared with the calls under way: its files go when the last of them has ended.
struct TenantDisks::Own {
  TenantId tenant = kNoTenant;
  std::string directory;
  std::atomic<uint64_t> disk_bytes{0};
  std::atomic<bool> remove{false};
  std::unique_ptr<Database> database;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<CopyAhead> copy_ahead;

  ~Own() {
    copy_ahead.reset();
    tier.reset();
    database.reset();
    std::error_code error;
    if (remove) std::filesystem::remove_all(directory, error);
    if (error) TP_LOG(Warning, "cache", "disk tier: ", directory, " stays: ", error.message());
  }
};

TenantDisks::TenantDisks(const Options& options, Database* database, TenantTable* tenants, DepartureLog* departures,
                         RemoteTier* remote)
    : data_dir_(options.data_dir),
      clock_(options.clock),
      database_(database),
      tenants_(tenants),
      departures_(departures),
      remote_(remote),
      disk_bytes_(options.disk_bytes) {}

TenantDisks::~TenantDisks() = default;

absl::StatusOr<std::unique_ptr<TenantDisks>> TenantDisks::Open(const Options& options, Database* database,
                                                               TenantTable* tenants, DepartureLog* departures,
                                                               RemoteTier* remote) {
  std::unique_ptr<TenantDisks> disks(new TenantDisks(options, database, tenants, departures, remote));
  uint64_t own_bytes = 0;
  for (const TenantId tenant : tenants->All()) {
    const uint64_t quota = tenants->QuotaOf(tenant).disk_bytes;
    if (quota == 0) continue;
    own_bytes += quota;
    TP_ASSIGN_OR_RETURN(std::shared_ptr<Own> own, disks->OpenOwn(tenant, quota));
    MutexLock lock(&disks->mutex_);
    disks->owns_.push_back(std::move(own));
    disks->any_own_ = true;
  }
  if (own_bytes > options.disk_bytes / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk_bytes ", options.disk_bytes, ": tenants have quotas of ", own_bytes,
                     " bytes of it, at most half; start with more, or with the old size and change them"));
  }
  TP_ASSIGN_OR_RETURN(disks->common_, DiskTier::Open(database, options.disk_bytes - own_bytes, tenants, departures,
                                                     kNoTenant, options.clock));
  if (remote != nullptr) disks->copy_ahead_ = std::make_unique<CopyAhead>(disks->common_.get(), remote);
  return disks;
}

absl::StatusOr<std::shared_ptr<TenantDisks::Own>> TenantDisks::OpenOwn(TenantId tenant, uint64_t disk_bytes) {
  const std::string name = tenants_->NameOf(tenant);
  auto own = std::make_shared<Own>();
  own->tenant = tenant;
  own->disk_bytes = disk_bytes;
  own->directory = absl::StrCat(data_dir_, "/tenants/", absl::BytesToHexString(name));
  DatabaseOptions options;
  options.data_dir = own->directory;
  options.write_buffer_bytes = DiskTier::WriteBufferBytes(disk_bytes);
  TP_ASSIGN_OR_RETURN(own->database, Database::Open(options));
  TP_ASSIGN_OR_RETURN(own->tier,
                      DiskTier::Open(own->database.get(), disk_bytes, tenants_, departures_, tenant, clock_));
  if (remote_ != nullptr) own->copy_ahead = std::make_unique<CopyAhead>(own->tier.get(), remote_);
  return own;
}

TenantDisks::Owns TenantDisks::All() const {
  if (!any_own_.load(std::memory_order_acquire)) return {};
  MutexLock lock(&mutex_);
  return owns_;
}

uint64_t TenantDisks::OwnBytes(TenantId but) const {
  uint64_t bytes = 0;
  for (const std::shared_ptr<Own>& own : All()) bytes += own->tenant == but ? 0 : own->disk_bytes.load();
  return bytes;
}

absl::Status TenantDisks::SetQuota(TenantId tenant, uint64_t disk_bytes) {
  MutexLock change(&change_);
  std::shared_ptr<Own> own;
  Owns all = All();
  for (const std::shared_ptr<Own>& one : all) {
    if (one->tenant == tenant) own = one;
  }
  if (disk_bytes == (own == nullptr ? 0 : own->disk_bytes.load())) return absl::OkStatus();
  const uint64_t others = OwnBytes(tenant);
  if (disk_bytes != 0) {
    if (disk_bytes < kLeastOwnBytes || disk_bytes > disk_bytes_) {
      return absl::InvalidArgumentError(
          absl::StrCat("quota.disk_bytes: ", disk_bytes, " is not 0 or in ", kLeastOwnBytes, " to ", disk_bytes_));
    }
    if (own == nullptr && all.size() >= kMostOwn) {
      return absl::FailedPreconditionError(
          absl::StrCat("quota.disk_bytes: ", kMostOwn, " tenants have a quota of the disk, more are not possible"));
    }
    if (others + disk_bytes > disk_bytes_ / 2) {
      return absl::FailedPreconditionError(absl::StrCat("quota.disk_bytes: ", disk_bytes, " and ", others,
                                                        " of other tenants are more than half of ", disk_bytes_,
                                                        " bytes of disk"));
    }
    // What the common tier gives comes first: the files never hold more than all together may.
    TP_RETURN_IF_ERROR(common_->SetDiskBytes(disk_bytes_ - others - disk_bytes));
    if (own != nullptr) {
      TP_RETURN_IF_ERROR(own->tier->SetDiskBytes(disk_bytes));
      own->disk_bytes = disk_bytes;
      return absl::OkStatus();
    }
    absl::StatusOr<std::shared_ptr<Own>> opened = OpenOwn(tenant, disk_bytes);
    if (!opened.ok()) {
      common_->SetDiskBytes(disk_bytes_ - others).IgnoreError();  // as it was
      return opened.status();
    }
    MutexLock lock(&mutex_);
    owns_.push_back(*std::move(opened));
    any_own_ = true;
    return absl::OkStatus();
  }
  {
    MutexLock lock(&mutex_);
    std::erase(owns_, own);
    any_own_ = !owns_.empty();
  }
  all.clear();
  own->remove = true;
  while (own.use_count() > 1) absl::SleepFor(absl::Milliseconds(1));  // calls under way
  own.reset();
  return common_->SetDiskBytes(disk_bytes_ - others);
}

absl::Status TenantDisks::SetDiskBytes(uint64_t disk_bytes) {
  MutexLock change(&change_);
  const uint64_t own_bytes = OwnBytes(kNoTenant);
  if (own_bytes > disk_bytes / 2) {
    return absl::FailedPreconditionError(
        absl::StrCat("disk_bytes ", disk_bytes, ": tenants have quotas of ", own_bytes, " bytes, at most half of it"));
  }
  TP_RETURN_IF_ERROR(common_->SetDiskBytes(disk_bytes - own_bytes));
  disk_bytes_ = disk_bytes;
  return absl::OkStatus();
}

std::vector<absl::Status> TenantDisks::Put(absl::Span<const DiskPut> puts, bool durable) {
  const Owns owns = All();
  if (owns.empty()) return common_->Put(puts, durable);
  std::vector<absl::Status> results(puts.size());
  std::vector<bool> done(puts.size());
  const auto store = [&](DiskTier& tier, const Own* own) {
    std::vector<DiskPut> his;
    std::vector<size_t> places;
    for (size_t i = 0; i < puts.size(); ++i) {
      if (done[i] || (own != nullptr && puts[i].tenant != own->tenant)) continue;
      done[i] = true;
      his.push_back(puts[i]);
      places.push_back(i);
    }
    if (his.empty()) return;
    std::vector<absl::Status> statuses = tier.Put(his, durable);
    for (size_t i = 0; i < places.size(); ++i) results[places[i]] = std::move(statuses[i]);
  };
  for (const std::shared_ptr<Own>& own : owns) store(*own->tier, own.get());
  store(*common_, nullptr);
  return results;
}

template <typename Result>
std::vector<Result> TenantDisks::Read(
    absl::Span<const BlockId> ids, absl::FunctionRef<std::vector<Result>(DiskTier&, absl::Span<const BlockId>)> read) {
  const Owns owns = All();
  if (owns.empty()) return read(*common_, ids);
  std::vector<std::optional<Result>> found(ids.size());
  const auto ask = [&](DiskTier& tier, bool all) {
    std::vector<BlockId> there;
    std::vector<size_t> places;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (found[i].has_value() || !(all || tier.Contains(ids[i]))) continue;
      there.push_back(ids[i]);
      places.push_back(i);
    }
    if (there.empty()) return;
    std::vector<Result> results = read(tier, there);
    for (size_t i = 0; i < places.size(); ++i) found[places[i]] = std::move(results[i]);
  };
  for (const std::shared_ptr<Own>& own : owns) ask(*own->tier, /*all=*/false);
  ask(*common_, /*all=*/true);
  std::vector<Result> results;
  results.reserve(ids.size());
  for (std::optional<Result>& one : found) results.push_back(*std::move(one));
  return results;
}

bool TenantDisks::Repeats(const BlockId& id, TenantId tenant) {
  for (const std::shared_ptr<Own>& own : All()) {
    if (own->tenant == tenant) return own->tier->Repeats(id);
  }
  return common_->Repeats(id);
}

std::vector<absl::StatusOr<BlockValue>> TenantDisks::Get(absl::Span<const BlockId> ids) {
  return Read<absl::StatusOr<BlockValue>>(
      ids, [](DiskTier& tier, absl::Span<const BlockId> there) { return tier.Get(there); });
}

std::vector<absl::StatusOr<uint64_t>> TenantDisks::Verify(absl::Span<const BlockId> ids) {
  return Read<absl::StatusOr<uint64_t>>(
      ids, [](DiskTier& tier, absl::Span<const BlockId> there) { return tier.Verify(there); });
}

std::optional<TenantId> TenantDisks::TenantOf(const BlockId& id) const {
  for (const std::shared_ptr<Own>& own : All()) {
    if (const std::optional<TenantId> tenant = own->tier->TenantOf(id); tenant.has_value()) return tenant;
  }
  return common_->TenantOf(id);
}

bool TenantDisks::ExpireSome(absl::Duration ttl, DiskTier::InUse in_use) {
  bool more = common_->ExpireSome(ttl, in_use);
  for (const std::shared_ptr<Own>& own : All()) more = own->tier->ExpireSome(ttl, in_use) || more;
  return more;
}

void TenantDisks::Use(absl::Span<const BlockKey> keys, absl::Time when) {
  common_->Use(keys, when);
  for (const std::shared_ptr<Own>& own : All()) own->tier->Use(keys, when);
}

std::vector<BlockId> TenantDisks::Ids(bool durable_only) const {
  std::vector<BlockId> ids = common_->Ids(durable_only);
  for (const std::shared_ptr<Own>& own : All()) {
    // What he had before he had a tier of his own may be in both.
    for (const BlockId& id : own->tier->Ids(durable_only)) {
      if (!common_->Contains(id)) ids.push_back(id);
    }
  }
  return ids;
}

DiskTier::CopyStats TenantDisks::copy_stats() const {
  DiskTier::CopyStats sum = common_->copy_stats();
  for (const std::shared_ptr<Own>& own : All()) {
    const DiskTier::CopyStats one = own->tier->copy_stats();
    sum.backlog_bytes += one.backlog_bytes;
    sum.dropped += one.dropped;
  }
  return sum;
}

TierStats TenantDisks::Stats() const {
  TierStats sum = common_->Stats();
  for (const std::shared_ptr<Own>& own : All()) sum += own->tier->Stats();
  return sum;
}

absl::flat_hash_map<TenantId, DiskIndex::Usage> TenantDisks::UsageByTenant() const {
  absl::flat_hash_map<TenantId, DiskIndex::Usage> sum = common_->UsageByTenant();
  for (const std::shared_ptr<Own>& own : All()) {
    for (const auto& [tenant, usage] : own->tier->UsageByTenant()) {
      sum[tenant].bytes += usage.bytes;
      sum[tenant].objects += usage.objects;
    }
  }
  return sum;
}

absl::Status TenantDisks::Flush() {
  absl::Status status = database_->Flush();
  for (const std::shared_ptr<Own>& own : All()) status.Update(own->database->Flush());
  return status;
}

absl::Status TenantDisks::Compact() {
  absl::Status status = database_->Compact();
  for (const std::shared_ptr<Own>& own : All()) status.Update(own->database->Compact());
  return status;
}

uint64_t TenantDisks::UsedBytes() const {
  uint64_t bytes = database_->UsedBytes();
  for (const std::shared_ptr<Own>& own : All()) bytes += own->database->UsedBytes();
  return bytes;
}

uint64_t TenantDisks::losses() const {
  uint64_t losses = database_->losses();
  for (const std::shared_ptr<Own>& own : All()) losses += own->database->losses();
  return losses;
}

bool TenantDisks::writable() const {
  for (const std::shared_ptr<Own>& own : All()) {
    if (!own->database->writable()) return false;
  }
  return database_->writable();
}

}  // namespace tidepool
