#include "tests/reliability/simulated_storage.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "cacheservice/tiers/disk_tier.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"

namespace tidepool::test {
namespace {

constexpr uint64_t kDiskBytes = uint64_t{16} << 20;
// So long that the thread which looks for what is due, once in a minute of real time, does not come to it: the
// simulation says when.
constexpr int64_t kTtlMs = int64_t{70} * 60 * 1000;
constexpr int kOpenAttempts = 5;  // on a disk that fails; then it works

BlockId Id(int number) { return {NumberedKey(number), 0}; }

const std::string& ValueOf(int number) {
  static const std::vector<std::string> values = [] {
    std::vector<std::string> all;
    for (int i = 0; i < SimulatedStorage::kBlocks; ++i) all.push_back(NumberedValue(i, 0));
    return all;
  }();
  return values[static_cast<size_t>(number)];
}

// Seeds go through the kinds of trouble, one at a time and then together.
DiskFaults DiskOf(uint64_t seed) {
  DiskFaults faults;
  if (seed % 6 == 2 || seed % 6 == 5) faults.write_error = 3000, faults.read_error = 30'000;
  if (seed % 6 == 4 || seed % 6 == 5) faults.short_write = 3000, faults.sync_error = 10'000;
  if (seed % 2 == 1) faults.power_off = 3000;
  return faults;
}

}  // namespace

void History::Note(const std::string& line) {
  for (const char c : line) digest_ = (digest_ ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  lines_.push_back(absl::StrCat(*now_ms_, " ", line));
  if (lines_.size() > shown_) lines_.pop_front();
}

void History::Violation(const std::string& what) {
  if (failed()) return;
  failure_ = absl::StrCat("seed ", seed_, ": ", what, "\n  ", absl::StrJoin(lines_, "\n  "));
}

SimulatedStorage::SimulatedStorage(uint64_t seed, const int64_t* now_ms, History* history)
    : now_ms_(now_ms),
      history_(history),
      ttl_ms_(seed % 5 == 0 ? kTtlMs : 0),
      disk_faults_(DiskOf(seed)),
      disk_(std::make_shared<SimulatedDisk>(seed, DiskFaults())),
      env_(disk_) {}

absl::Status SimulatedStorage::Open() {
  DatabaseOptions database;
  database.data_dir = dir_.path();
  database.write_buffer_bytes = DiskTier::WriteBufferBytes(kDiskBytes);
  database.resume_interval = absl::ZeroDuration();
  database.env = &env_;
  TP_ASSIGN_OR_RETURN(database_, Database::Open(database));
  CacheOptions cache;
  cache.data_dir = dir_.path();
  cache.memory_bytes = 512 << 10;
  cache.disk_bytes = kDiskBytes;
  cache.disk_ttl = absl::Milliseconds(ttl_ms_);
  const auto clock = [this] { return absl::FromUnixMillis(*now_ms_); };
  TP_ASSIGN_OR_RETURN(store_, TieredStore::Open(cache, database_.get(), clock));
  TP_ASSIGN_OR_RETURN(manifests_, DiskManifestStore::Open(database_.get(), uint64_t{64} << 20, clock));
  return absl::OkStatus();
}

bool SimulatedStorage::Start() {
  // A disk that fails while the service starts may keep it from starting: it is started again.
  disk_->set_faults(open_attempts_ < kOpenAttempts ? disk_faults_ : DiskFaults());
  if (open_attempts_ >= kOpenAttempts) disk_->set_full(false);
  failures_before_ = disk_->failures();
  const absl::Status opened = Open();
  history_->Note(absl::StrCat("start: ", absl::StatusCodeToString(opened.code())));
  if (!opened.ok()) {
    Expect(disk_->failures() != failures_before_, absl::StrCat("it does not start: ", opened.ToString()));
    const bool power_lost = !disk_->powered();
    Stop();
    disk_->PowerOn(/*synced_only=*/power_lost);
    ++open_attempts_;
    return false;
  }
  open_attempts_ = 0;
  failed_behind_ = false;
  Settle();
  sessions_.Restarted();
  if (disk_->powered()) return true;
  Restart(End::kPowerLoss);
  return false;
}

// With the power off nothing is written any more.
void SimulatedStorage::Stop() {
  disk_->PowerOff();
  leases_.clear();
  manifests_.reset();
  store_.reset();
  database_.reset();
}

// Until all that was begun in the background has ended.
void SimulatedStorage::Settle() {
  const uint64_t failures = disk_->failures();
  env_.Settle([this] {
    stats_ = store_->Stats();
    return stats_.demotion_queue_bytes == 0;
  });
  failed_behind_ = failed_behind_ || disk_->failures() != failures;
}

void SimulatedStorage::Restart(End end) {
  if (!disk_->powered()) end = End::kPowerLoss;
  history_->Note(absl::StrCat("end ", static_cast<int>(end)));
  if (end == End::kOrderly) DrainToDisk();
  Stop();
  disk_->PowerOn(/*synced_only=*/end == End::kPowerLoss);
  blocks_.OnlyDurableIsSure();
  blocks_.UsesAreForgotten();
}

void SimulatedStorage::Expire() {
  CallBegins();
  const uint64_t before = store_->Stats().disk.expired;
  store_->ExpireUnused();
  Settle();
  const auto expired = static_cast<int64_t>(stats_.disk.expired - before);
  expired_ += expired;
  history_->Note(absl::StrCat("expire: ", expired));
  if (WriteFailed()) blocks_.OnlyDurableIsSure();
  blocks_.Expired(DiskFailed(), *now_ms_);
  CheckLimits();
}

void SimulatedStorage::CheckAllExpire() {
  Expire();
  Expect(stats_.disk.objects == 0,
         absl::StrCat(stats_.disk.objects, " values are on disk that nobody has used for longer than they stay"));
}

void SimulatedStorage::Heal() {
  disk_faults_ = DiskFaults();
  disk_->set_faults(disk_faults_);
  disk_->set_full(false);
}

void SimulatedStorage::CallBegins() {
  failures_before_ = disk_->failures();
  failed_reads_before_ = disk_->failed_reads();
  lost_before_ = stats_.dropped;
  writable_before_ = database_->writable();
}

bool SimulatedStorage::WriteFailed() const {
  return disk_->failures() - disk_->failed_reads() != failures_before_ - failed_reads_before_ || !writable_before_ ||
         !database_->writable() || stats_.dropped != lost_before_;
}

void SimulatedStorage::Execute(Message* message) {
  ++message->executed;
  CallBegins();
  switch (message->kind) {
    case Message::Kind::kPut: Put(*message); break;
    case Message::Kind::kGet: Get(*message); break;
    case Message::Kind::kGather: Gather(*message); break;
    case Message::Kind::kLookup: Lookup(*message); break;
    case Message::Kind::kLease: Lease(*message); break;
    case Message::Kind::kPutManifest:
    case Message::Kind::kCopyManifest: PutManifest(*message); break;
    case Message::Kind::kGetManifest: GetManifest(message->session); break;
    case Message::Kind::kDelete: Delete(*message); break;
  }
  Settle();
  // What was on its way to disk when that failed is lost, as far as it was not durable.
  if (WriteFailed()) blocks_.OnlyDurableIsSure();
  CheckLimits();
}

void SimulatedStorage::ExpectOkUnlessDiskFailed(const absl::Status& status, const std::string& what) {
  if (status.ok()) return;
  Expect((DiskFailed() || failed_behind_) && (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)),
         absl::StrCat(what, ": ", status.ToString(), ", and the disk has not failed so"));
  if (absl::IsResourceExhausted(status)) failed_behind_ = false;
}

void SimulatedStorage::Put(const Message& message) {
  const absl::StatusOr<Tier> tier = store_->Put(Id(message.number), ValueOf(message.number), message.durable);
  history_->Note(absl::StrCat("put ", message.number, message.durable ? " durable: " : ": ",
                              tier.ok() ? absl::StrCat("tier ", static_cast<int>(*tier)) : "refused"));
  ExpectOkUnlessDiskFailed(tier.status(), absl::StrCat("put ", message.number));
  if (!tier.ok()) return blocks_.PutFailed(message.number, *now_ms_);
  Expect(!message.durable || *tier == Tier::kDisk, "a durable value is not on disk");
  blocks_.Stored(message.number, message.durable, *now_ms_);
}

void SimulatedStorage::Get(const Message& message) {
  const absl::StatusOr<BlockValue> value = store_->Get(Id(message.number));
  history_->Note(absl::StrCat("get ", message.number, ": ",
                              !value.ok()         ? "failed"
                              : *value == nullptr ? "miss"
                                                  : "hit"));
  ExpectOkUnlessDiskFailed(value.status(), absl::StrCat("get ", message.number));
  if (!value.ok()) return;
  ++checked_blocks_;
  const bool hit = *value != nullptr;
  const bool must_be_there = blocks_.MustBeThere(message.number, *now_ms_);
  if (hit) blocks_.Used(message.number, *now_ms_);
  Expect(!hit || **value == ValueOf(message.number), absl::StrCat("wrong bytes of block ", message.number));
  Expect(!hit || blocks_.MayBeThere(message.number), absl::StrCat("block ", message.number, " was never put"));
  Expect(hit || !must_be_there, absl::StrCat("block ", message.number, " was acknowledged and is lost"));
  const bool leased =
      std::any_of(leases_.begin(), leases_.end(), [&](const auto& lease) { return lease.first == message.number; });
  Expect(hit || !leased, absl::StrCat("block ", message.number, " is leased and is lost"));
}

void SimulatedStorage::Gather(const Message& message) {
  const RowSelection selection = {Id(message.number), message.kv_head, message.row_mask};
  const absl::StatusOr<RecalledRows> rows = store_->GatherRows({&selection, 1});
  history_->Note(absl::StrCat("gather ", message.number, ": ",
                              !rows.ok()            ? "failed"
                              : rows->found[0] == 0 ? "miss"
                                                    : "hit"));
  ExpectOkUnlessDiskFailed(rows.status(), absl::StrCat("gather ", message.number));
  if (!rows.ok()) return;
  ++checked_blocks_;
  if (rows->found[0] == 0) {
    Expect(!blocks_.MustBeThere(message.number, *now_ms_),
           absl::StrCat("block ", message.number, " was acknowledged and has no rows"));
    return;
  }
  blocks_.Used(message.number, *now_ms_);
  const BlockView view = *BlockView::Parse(ValueOf(message.number));
  std::string expected;
  for (int token = 0; token < kBlockTokens; ++token) {
    if ((message.row_mask >> token & 1) != 0) expected += view.Row(message.kv_head, token);
  }
  Expect(rows->found[0] == message.row_mask && rows->rows == expected,
         absl::StrCat("wrong rows of block ", message.number));
}

void SimulatedStorage::Lookup(const Message& message) {
  std::vector<BlockKey> chain;
  for (const int number : message.chain) chain.push_back(Id(number).key);
  const int found = store_->LookupPrefix(chain, /*layers=*/1).blocks;
  history_->Note(absl::StrCat("lookup: ", found));
  int at_least = 0;
  while (at_least < static_cast<int>(chain.size()) && blocks_.MustBeThere(message.chain[at_least], *now_ms_))
    ++at_least;
  Expect(found >= at_least, absl::StrCat("a lookup finds ", found, " of ", at_least, " acknowledged blocks"));
  for (int i = 0; i < found; ++i) {
    Expect(blocks_.MayBeThere(message.chain[i]),
           absl::StrCat("a lookup finds block ", message.chain[i], ", which was never put"));
  }
}

// A stream that reads a block for a while; half of them end.
void SimulatedStorage::Lease(const Message& message) {
  if (message.release && !leases_.empty()) {
    history_->Note(absl::StrCat("release ", leases_.back().first));
    leases_.pop_back();
    return;
  }
  absl::StatusOr<BlockLease> lease = BlockLease::Take(store_.get(), Id(message.number));
  history_->Note(absl::StrCat("lease ", message.number, ": ", lease.ok() ? "taken" : "not there"));
  if (lease.ok()) {
    leases_.emplace_back(message.number, *std::move(lease));
  } else if (!absl::IsNotFound(lease.status()) && !absl::IsResourceExhausted(lease.status())) {
    ExpectOkUnlessDiskFailed(lease.status(), absl::StrCat("lease ", message.number));
  }
}

void SimulatedStorage::PutManifest(const Message& message) {
  const bool copy = message.kind == Message::Kind::kCopyManifest;
  const std::optional<SessionManifest> before = sessions_.sure(message.session);
  const bool sure = sessions_.IsSure(message.session);
  const absl::Status status = copy ? manifests_->PutCopy(message.manifest, absl::InfiniteFuture())
                                   : manifests_->Put(message.manifest, absl::InfiniteFuture());
  history_->Note(absl::StrCat(copy ? "copy " : "put ", message.session, " revision ", message.manifest.revision, ": ",
                              absl::StatusCodeToString(status.code())));
  SessionManifest written = message.manifest;
  if (!copy) written.updated_unix_ms = *now_ms_;
  const int64_t revision = before.has_value() ? before->revision : 0;
  if (absl::IsAborted(status)) {
    const bool follows = copy ? written.revision > revision : written.revision == revision + 1;
    Expect(!sure || !follows, absl::StrCat(message.session, ": a turn that follows is refused: ", status.ToString()));
    return;
  }
  ExpectOkUnlessDiskFailed(status, absl::StrCat("put ", message.session));
  if (!status.ok()) return sessions_.WriteFailed(message.session, written);
  const bool there_already = copy && before.has_value() && written.revision == revision && *before == written;
  const bool follows = copy ? written.revision > revision || there_already : written.revision == revision + 1;
  Expect(!sure || follows,
         absl::StrCat(message.session, ": revision ", written.revision, " was taken after ", revision));
  sessions_.Wrote(message.session, written);
}

void SimulatedStorage::GetManifest(const std::string& session) {
  const absl::StatusOr<std::optional<SessionManifest>> got =
      manifests_->Get("default", session, absl::InfiniteFuture());
  history_->Note(absl::StrCat("read ", session, ": ",
                              !got.ok()          ? "failed"
                              : got->has_value() ? absl::StrCat("revision ", (*got)->revision)
                                                 : "none"));
  ExpectOkUnlessDiskFailed(got.status(), absl::StrCat("read ", session));
  if (!got.ok()) return;
  ++checked_manifests_;
  const std::optional<SessionManifest>& sure = sessions_.sure(session);
  const int64_t revision = sure.has_value() ? sure->revision : 0;
  Expect(sessions_.Read(session, *got), absl::StrCat(session, ": revision ", got->has_value() ? (*got)->revision : 0,
                                                     " is read, ", revision, " was acknowledged"));
}

void SimulatedStorage::Delete(const Message& message) {
  const absl::Status status = manifests_->Delete("default", message.session, absl::InfiniteFuture());
  history_->Note(absl::StrCat("delete ", message.session, ": ", absl::StatusCodeToString(status.code())));
  ExpectOkUnlessDiskFailed(status, absl::StrCat("delete ", message.session));
  if (status.ok()) {
    sessions_.Wrote(message.session, std::nullopt);
  } else {
    sessions_.WriteFailed(message.session, std::nullopt);
  }
}

void SimulatedStorage::DrainToDisk() {
  CallBegins();
  const absl::Status drained = store_->Drain();
  stats_ = store_->Stats();
  history_->Note(absl::StrCat("drain: ", absl::StatusCodeToString(drained.code())));
  ExpectOkUnlessDiskFailed(drained, "drain");
  if (WriteFailed()) blocks_.OnlyDurableIsSure();
  if (drained.ok()) blocks_.AllDurable(*now_ms_);
}

void SimulatedStorage::CheckLimits() {
  const CacheStats& stats = stats_;
  Expect(stats.memory.bytes <= stats.memory.limit_bytes, "memory holds more than its limit");
  Expect(stats.disk.bytes <= stats.disk.limit_bytes, "the disk tier holds more than its limit");
  Expect(stats.demotion_queue_bytes == 0, "values wait for demotion with nobody at work");
  std::set<int> leased;
  for (const auto& [number, lease] : leases_) leased.insert(number);
  Expect(stats.pinned_objects == leased.size(),
         absl::StrCat(stats.pinned_objects, " values are pinned, by ", leased.size(), " leases"));
  Expect(stats.memory.corrupt + stats.disk.corrupt == 0, "a value was found corrupt, and no byte was ever changed");
}

void SimulatedStorage::Count(SimulationCounts* counts) const {
  counts->failed_reads = static_cast<int64_t>(disk_->failed_reads());
  counts->failed_writes = static_cast<int64_t>(disk_->failures()) - counts->failed_reads;
  counts->blocks = checked_blocks_;
  counts->manifests = checked_manifests_;
  counts->expired = expired_;
}

void SimulatedStorage::CheckAll() {
  leases_.clear();
  Message message;
  CallBegins();
  // It takes writes again, at most a few attempts later.
  absl::StatusOr<Tier> tier = absl::UnknownError("not tried");
  for (int attempt = 0; attempt < 3 && !tier.ok(); ++attempt) tier = store_->Put(Id(0), ValueOf(0), /*durable=*/true);
  Expect(tier.ok(), absl::StrCat("the disk works and writes are refused: ", tier.status().ToString()));
  if (tier.ok()) blocks_.Stored(0, /*durable=*/true, *now_ms_);
  CallBegins();
  for (message.number = 0; message.number < kBlocks; ++message.number) Get(message);
  for (int session = 0; session < kSessions; ++session) GetManifest(absl::StrCat("s", session));
  Settle();
  CheckLimits();
}

}  // namespace tidepool::test
