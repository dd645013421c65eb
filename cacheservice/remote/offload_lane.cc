#include "cacheservice/remote/offload_lane.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/log.h"
#include "cacheservice/remote/backoff.h"
#include "cacheservice/remote/stream_end.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"

namespace tidepool {
namespace {

constexpr char kOffloadMethod[] = "/tidepool.v1.CacheStore/Offload";
constexpr int kMostDamaged = 3;  // arrivals of one value

}  // namespace

OffloadLane::OffloadLane(const RemoteCacheOptions& options, const std::shared_ptr<grpc::Channel>& channel)
    : options_(options), channel_(channel), thread_([this] { Run(); }) {}

OffloadLane::~OffloadLane() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    if (context_ != nullptr) context_->TryCancel();
    changed_.SignalAll();
  }
  thread_.join();
  FailOld(absl::UnavailableError("the worker is shutting down"), /*all=*/true);
}

void OffloadLane::Interrupt() {
  MutexLock lock(&mutex_);
  if (entries_.empty() && context_ == nullptr) return;
  interrupted_ = true;
  if (context_ != nullptr) context_->TryCancel();
  changed_.SignalAll();
}

void OffloadLane::Resume() {
  MutexLock lock(&mutex_);
  if (connected_) return;
  resumed_ = true;
  changed_.SignalAll();
}

void OffloadLane::Offload(BlockId id, std::string value, const OffloadOptions& options, bool now, Done done) {
  // One value that the service must refuse would break the stream again each time it is repeated.
  const size_t most = std::min(kMaxWireValueBytes, options_.write_behind_bytes);
  if (value.empty() || value.size() > most || id.layer < 0 || id.layer >= options_.layout.layers) {
    counters_.failures.fetch_add(1);
    absl::Status bad = absl::InvalidArgumentError(absl::StrCat("offload: ", value.size(), " bytes of layer ", id.layer,
                                                               "; 1 to ", most, " bytes of layer 0 to ",
                                                               options_.layout.layers - 1, " are allowed"));
    return done(std::move(bad), std::move(value));
  }
  auto entry = std::make_shared<Entry>();
  entry->id = id;
  entry->options = options;
  entry->give_up = Clock::now() + absl::ToChronoMilliseconds(options_.offload_patience);
  const size_t bytes = value.size();
  entry->value = std::make_shared<std::string>(std::move(value));
  entry->done = std::move(done);
  bool full = false;
  {
    MutexLock lock(&mutex_);
    // Waits for room while the stream is moving; a service that is away or slow must not hold the engine up.
    const Clock::time_point start = Clock::now();
    const Clock::time_point until = start + absl::ToChronoMilliseconds(options_.write_behind_patience) - waited_;
    ++waiting_;
    while (!now && options.may_wait && !stop_ && connected_ && !broken_ && !HasRoom(bytes)) {
      if (!changed_.WaitUntil(&mutex_, until)) break;
    }
    --waiting_;
    waited_ += Clock::now() - start;  // two that wait at once count twice: that ends sooner
    full = !now && !HasRoom(bytes);
    if (!full && !stop_) {
      queued_bytes_ += bytes;
      entries_.push_back(std::move(entry));
      if (!writing_ || entries_.size() == 1) changed_.SignalAll();  // else it is written after those before it
      return;
    }
  }
  counters_.failures.fetch_add(1);
  const std::string service = absl::StrCat("cache service ", options_.endpoint);
  entry->done(full ? absl::ResourceExhaustedError(absl::StrCat(service, ": the write-behind buffer of ",
                                                               options_.write_behind_bytes, " bytes is full"))
                   : absl::UnavailableError(absl::StrCat(service, ": the connection is being closed")),
              TakeBack(*entry));
}

std::string OffloadLane::TakeBack(Entry& entry) {
  // A service that answers too early may still be written to, and gRPC writes when it likes.
  if (entry.value.use_count() > 1) return *entry.value;
  std::atomic_thread_fence(std::memory_order_acquire);  // what the others read, they have read
  return std::move(*entry.value);
}

void OffloadLane::FailOld(const absl::Status& why, bool all) {
  std::vector<std::shared_ptr<Entry>> failed;
  {
    MutexLock lock(&mutex_);
    if (sent_ > 0 && !all) return;  // answers may still come
    const Clock::time_point now = Clock::now();
    while (!entries_.empty() && (all || entries_.front()->give_up < now)) {
      queued_bytes_ -= entries_.front()->value->size();
      failed.push_back(std::move(entries_.front()));
      entries_.pop_front();
    }
    if (!failed.empty()) changed_.SignalAll();
  }
  for (std::shared_ptr<Entry>& entry : failed) {
    counters_.failures.fetch_add(1);
    entry->done(why, TakeBack(*entry));
  }
}

void OffloadLane::Run() {
  Backoff backoff;
  bool first = true;
  for (;;) {
    {
      // Nothing to do: no stream is needed either.
      MutexLock lock(&mutex_);
      while (!stop_ && entries_.empty()) changed_.Wait(&mutex_);
      if (stop_) return;
    }
    if (!std::exchange(first, false)) counters_.reconnects.fetch_add(1);
    const grpc::Status end = RunStream();
    bool was_connected = false, interrupted = false;
    {
      MutexLock lock(&mutex_);
      was_connected = connected_;
      interrupted = std::exchange(interrupted_, false);
      // What was not answered is sent again.
      for (size_t i = 0; i < sent_; ++i) entries_[i]->sequence = 0;
      sent_ = sent_bytes_ = 0;
      connected_ = false;
      if (stop_) return;
    }
    if (IsRefusal(end)) {
      FailOld(RefusalOf(options_.endpoint, end), /*all=*/true);
    } else {
      FailOld(absl::UnavailableError(absl::StrCat("cache service ", options_.endpoint,
                                                  was_connected ? " does not answer" : " cannot be reached")),
              interrupted);
    }
    if (was_connected) backoff.Reset();
    const Clock::time_point until = Clock::now() + backoff.Next();
    {
      MutexLock lock(&mutex_);
      while (!stop_ && !interrupted_ && !resumed_ && changed_.WaitUntil(&mutex_, until)) {
      }
      resumed_ = false;
      interrupted = std::exchange(interrupted_, false);
    }
    if (interrupted) {
      FailOld(absl::UnavailableError(absl::StrCat("cache service ", options_.endpoint, " cannot be reached")),
              /*all=*/true);
    }
  }
}

grpc::Status OffloadLane::RunStream() {
  grpc::ClientContext context;
  {
    MutexLock lock(&mutex_);
    if (stop_) return grpc::Status::CANCELLED;
    context_ = &context;
    broken_ = false;
    credit_ = 0;
    writing_ = true;
  }
  hello_sent_ = false;
  last_sequence_ = 0;
  Stream stream(channel_.get(), kOffloadMethod, &context,
                {.next = [this] { return NextMessage(); },
                 .take = [this, &stream](v1::OffloadResponse* response) { Take(*response, &stream); },
                 .end = [this] { Break(); }});
  stream.Write();
  for (;;) {
    {
      MutexLock lock(&mutex_);
      auto overdue = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return !entries_.empty() && entries_.front()->give_up < Clock::now();
      };
      while (!stop_ && !broken_ && !interrupted_ && !overdue() && !MayWrite()) {
        if (entries_.empty()) {
          changed_.Wait(&mutex_);
        } else {
          changed_.WaitUntil(&mutex_, entries_.front()->give_up);
        }
      }
      if (stop_ || broken_) break;
      if (interrupted_ || overdue()) {
        context.TryCancel();
        break;
      }
      writing_ = true;
    }
    stream.Write();
  }
  // Not cancelled when the service ended it: that would hide its reason. The destructor cancels when the lane stops.
  const grpc::Status status = stream.Finish();
  // Nobody writes any more. The value may have been half written; the next stream, if one comes, begins with another.
  value_.reset();
  entry_.reset();
  {
    MutexLock lock(&mutex_);
    context_ = nullptr;
    if (stop_) return status;
  }
  if (status.error_code() != grpc::StatusCode::CANCELLED) {
    TP_LOG(Warning, "cache", "offload stream to ", options_.endpoint,
           " ended: ", Explained(options_.security.get(), status.error_message()));
  }
  return status;
}

bool OffloadLane::MaySend() const {
  return credit_ > 0 && sent_ < entries_.size() &&
         (sent_ == 0 || sent_bytes_ + entries_[sent_]->value->size() <= credit_);
}

std::optional<grpc::ByteBuffer> OffloadLane::NextMessage() {
  if (!hello_sent_) {
    hello_sent_ = true;
    v1::OffloadRequest hello;
    *hello.mutable_hello() =
        options_.any_shape ? AnyShapeHelloOf(options_.tenant) : HelloOf(options_.tenant, options_.layout);
    return WithPayload(hello, {}, grpc::Slice());
  }
  bool unchecked = false;
  {
    MutexLock lock(&mutex_);
    unchecked = unchecked_;
    if (value_ == nullptr) {
      if (broken_ || !MaySend()) {
        writing_ = false;
        return std::nullopt;
      }
      entry_ = entries_[sent_];
      value_ = entry_->value;
      sent_of_value_ = 0;
      entry_->sequence = sequence_ = ++last_sequence_;
      ++sent_;
      sent_bytes_ += value_->size();
    }
  }
  v1::BlockFrame frame;
  frame.set_sequence(sequence_);
  if (sent_of_value_ == 0) {
    *frame.mutable_block() = RefOf(entry_->id);
    frame.set_value_bytes(static_cast<uint32_t>(value_->size()));
    frame.set_durable(entry_->options.durable);
    if (entry_->options.parent != BlockKey{}) frame.set_parent_key(std::string(entry_->options.parent.AsString()));
    if (entry_->options.tenant != options_.tenant) frame.set_tenant(entry_->options.tenant);
  }
  const size_t bytes = std::min(FrameBytesFor(value_->size()), value_->size() - sent_of_value_);
  frame.set_unchecked(unchecked);
  if (!unchecked) frame.set_checksum(Checksum32(value_->data() + sent_of_value_, bytes));
  grpc::ByteBuffer message = WithPayload(frame, kBlockFramePayload, SharedSlice(value_, sent_of_value_, bytes));
  sent_of_value_ += bytes;
  if (sent_of_value_ == value_->size()) {
    value_.reset();
    entry_.reset();
  }
  return message;
}

bool OffloadLane::SendAgain(size_t index) {
  std::shared_ptr<Entry> entry = entries_[index];
  if (++entry->damaged >= kMostDamaged) return false;
  counters_.resent.fetch_add(1);
  TP_LOG(Warning, "cache", "block ", entry->id.key.ToHex(), " layer ", entry->id.layer, " arrived damaged at ",
         options_.endpoint, " and is sent again");
  entry->sequence = 0;
  entries_.erase(entries_.begin() + static_cast<int64_t>(index));
  --sent_;
  sent_bytes_ -= entry->value->size();
  entries_.insert(entries_.begin() + static_cast<int64_t>(sent_), std::move(entry));
  changed_.SignalAll();
  return true;
}

void OffloadLane::Take(const v1::OffloadResponse& response, Stream* stream) {
  std::shared_ptr<Entry> entry;
  bool write = false;
  {
    MutexLock lock(&mutex_);
    if (response.has_accepted()) {
      credit_ = response.accepted().credit_bytes();
      unchecked_ = response.accepted().takes_unchecked();
      connected_ = true;
      changed_.SignalAll();
    } else {
      entry = TakeAnswered(response.result());
    }
    write = !stop_ && MayWrite();
    writing_ = writing_ || write;
  }
  if (write) stream->Write();
  if (entry == nullptr) return;
  if (const v1::OffloadResult& result = response.result(); result.code() == 0) {
    counters_.blocks.fetch_add(1);
    counters_.bytes.fetch_add(static_cast<int64_t>(entry->value->size()));
    entry->done(absl::OkStatus(), std::string());
  } else {
    counters_.failures.fetch_add(1);
    entry->done(absl::Status(static_cast<absl::StatusCode>(result.code()), result.message()), TakeBack(*entry));
  }
}

std::shared_ptr<OffloadLane::Entry> OffloadLane::TakeAnswered(const v1::OffloadResult& result) {
  for (size_t i = 0; i < sent_; ++i) {
    if (entries_[i]->sequence != result.sequence()) continue;
    if (result.code() == static_cast<int>(absl::StatusCode::kDataLoss) && SendAgain(i)) return nullptr;
    std::shared_ptr<Entry> entry = std::move(entries_[i]);
    entries_.erase(entries_.begin() + static_cast<int64_t>(i));
    --sent_;
    sent_bytes_ -= entry->value->size();
    queued_bytes_ -= entry->value->size();
    if (queued_bytes_ <= options_.write_behind_bytes / 2) waited_ = Clock::duration::zero();
    if (waiting_ > 0) changed_.SignalAll();
    return entry;
  }
  return nullptr;
}

void OffloadLane::Break() {
  MutexLock lock(&mutex_);
  broken_ = true;
  changed_.SignalAll();
}

}  // namespace tidepool
