#include "cacheservice/remote/recall_lane.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "cacheservice/remote/backoff.h"
#include "cacheservice/remote/stream_end.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"

namespace tidepool {
namespace {

constexpr char kRecallMethod[] = "/tidepool.v1.CacheStore/Recall";

}  // namespace

RecallLane::RecallLane(const RemoteCacheOptions& options, const std::shared_ptr<grpc::Channel>& channel)
    : options_(options), channel_(channel), thread_([this] { Run(); }) {}

RecallLane::~RecallLane() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    if (context_ != nullptr) context_->TryCancel();
    changed_.SignalAll();
  }
  thread_.join();
  Expire(/*all=*/true, absl::UnavailableError("the worker is shutting down"));
}

void RecallLane::Recall(std::vector<RowSelection> selections, absl::Time deadline,
                        std::function<void(absl::StatusOr<RecalledRows>)> done) {
  Stream* stream = nullptr;
  bool refused = false;
  {
    MutexLock lock(&mutex_);
    const Clock::time_point now = Clock::now();
    refused = stop_ || (!connected_ && now - absl::ToChronoMilliseconds(options_.recall_patience) > away_since_);
    if (!refused) {
      auto request = std::make_unique<Request>();
      request->selections = std::move(selections);
      const absl::Duration left = std::clamp(deadline - absl::Now(), absl::ZeroDuration(), absl::Hours(1));
      request->deadline = now + absl::ToChronoMicroseconds(left);
      request->done = std::move(done);
      // The thread is woken for what it would miss, not for each request.
      if (request->deadline < next_wake_) changed_.SignalAll();
      requests_[next_id_++] = std::move(request);
      if (stream_ != nullptr && !writing_ && !broken_) {
        writing_ = true;
        ++starting_;
        stream = stream_;
      }
    }
  }
  if (refused) {
    return done(absl::UnavailableError(absl::StrCat("cache service ", options_.endpoint, " cannot be reached")));
  }
  if (stream == nullptr) return;
  stream->Write();
  MutexLock lock(&mutex_);
  if (--starting_ == 0 && stream_ == nullptr) changed_.SignalAll();
}

void RecallLane::Interrupt() {
  {
    MutexLock lock(&mutex_);
    if (context_ != nullptr) context_->TryCancel();
  }
  Expire(/*all=*/true, absl::UnavailableError(absl::StrCat("cache service ", options_.endpoint, " cannot be reached")));
}

void RecallLane::Resume() {
  MutexLock lock(&mutex_);
  if (connected_) return;
  if (away_since_ != Clock::time_point::max()) away_since_ = Clock::now();
  resumed_ = true;
  changed_.SignalAll();
}

RecallLane::Clock::time_point RecallLane::NextWake() {
  next_wake_ = Clock::now() + std::chrono::seconds(1);
  for (const auto& [id, request] : requests_) next_wake_ = std::min(next_wake_, request->deadline);
  return next_wake_;
}

void RecallLane::Expire(bool all, const absl::Status& why) {
  std::vector<std::unique_ptr<Request>> expired;
  {
    MutexLock lock(&mutex_);
    const Clock::time_point now = Clock::now();
    for (auto at = requests_.begin(); at != requests_.end();) {
      if (all || at->second->deadline <= now) {
        expired.push_back(std::move(at->second));
        at = requests_.erase(at);
      } else {
        ++at;
      }
    }
  }
  for (std::unique_ptr<Request>& request : expired) request->done(why);
}

void RecallLane::Run() {
  Backoff backoff;
  bool first = true;
  const absl::Status late =
      absl::DeadlineExceededError(absl::StrCat("cache service ", options_.endpoint, ": no answer in time"));
  for (;;) {
    // The stream is held open from the first request on; a broken one is made anew at once, so that it is there when
    // needed.
    {
      MutexLock lock(&mutex_);
      while (!stop_ && first && requests_.empty()) changed_.Wait(&mutex_);
      if (stop_) return;
    }
    if (!std::exchange(first, false)) counters_.reconnects.fetch_add(1);
    const grpc::Status end = RunStream();
    bool was_connected = false;
    {
      MutexLock lock(&mutex_);
      was_connected = connected_;
      connected_ = false;
      if (was_connected || away_since_ == Clock::time_point::max()) away_since_ = Clock::now();
      for (auto& [id, request] : requests_) request->rows = RecalledRows();  // asked for again
      if (stop_) return;
    }
    if (IsRefusal(end)) {
      Expire(true, RefusalOf(options_.endpoint, end));
    } else if (was_connected) {
      backoff.Reset();
    }
    const Clock::time_point until = Clock::now() + backoff.Next();
    for (;;) {
      Expire(false, late);
      MutexLock lock(&mutex_);
      if (stop_) return;
      if (Clock::now() >= until || std::exchange(resumed_, false)) break;
      changed_.WaitUntil(&mutex_, std::min(until, NextWake()));
    }
    bool away = false;
    {
      MutexLock lock(&mutex_);
      away = Clock::now() - absl::ToChronoMilliseconds(options_.recall_patience) > away_since_;
    }
    if (away)
      Expire(true, absl::UnavailableError(absl::StrCat("cache service ", options_.endpoint, " cannot be reached")));
  }
}

grpc::Status RecallLane::RunStream() {
  grpc::ClientContext context;
  {
    MutexLock lock(&mutex_);
    if (stop_) return grpc::Status::CANCELLED;
    context_ = &context;
    broken_ = hello_sent_ = false;
    next_sent_ = 0;
    writing_ = true;
  }
  const absl::Status late =
      absl::DeadlineExceededError(absl::StrCat("cache service ", options_.endpoint, ": no answer in time"));
  Stream stream(channel_.get(), kRecallMethod, &context,
                {.next = [this] { return NextMessage(); },
                 .take = [this](grpc::ByteBuffer* message) { Take(message); },
                 .end = [this] { Break(); }});
  {
    MutexLock lock(&mutex_);
    stream_ = &stream;
  }
  stream.Write();
  for (;;) {
    Expire(false, late);
    MutexLock lock(&mutex_);
    if (stop_ || broken_) break;
    changed_.WaitUntil(&mutex_, NextWake());
  }
  {
    MutexLock lock(&mutex_);
    stream_ = nullptr;
    while (starting_ > 0) changed_.Wait(&mutex_);
  }
  // Not cancelled, the service has ended it: that would hide its reason. The destructor cancels when the lane stops.
  const grpc::Status status = stream.Finish();
  MutexLock lock(&mutex_);
  context_ = nullptr;
  if (!stop_ && status.error_code() != grpc::StatusCode::CANCELLED) {
    TP_LOG(Warning, "cache", "recall stream to ", options_.endpoint,
           " ended: ", Explained(options_.security.get(), status.error_message()));
  }
  return status;
}

std::optional<grpc::ByteBuffer> RecallLane::NextMessage() {
  MutexLock lock(&mutex_);
  if (!std::exchange(hello_sent_, true)) {
    v1::RecallRequest hello;
    *hello.mutable_hello() = HelloOf(options_.tenant, options_.layout);
    return WithPayload(hello, {}, grpc::Slice());
  }
  connected_ = true;
  away_since_ = Clock::time_point::max();
  const auto next = requests_.lower_bound(next_sent_);
  if (next == requests_.end() || broken_ || stop_) {
    writing_ = false;
    return std::nullopt;
  }
  next_sent_ = next->first + 1;
  const Request& request = *next->second;
  v1::RowsRequest& rows = *message_.mutable_rows();
  rows.Clear();  // what it has is used again
  rows.set_id(next->first);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(request.deadline - Clock::now()).count();
  rows.set_deadline_ms(static_cast<uint32_t>(std::max<int64_t>(1, left)));
  for (const RowSelection& selection : request.selections) {
    v1::RowSelectionRef& ref = *rows.add_selections();
    SetRef(selection.block, ref.mutable_block());
    ref.set_kv_head(selection.kv_head);
    ref.set_row_mask(selection.row_mask);
  }
  return WithPayload(message_, {}, grpc::Slice());
}

void RecallLane::Break() {
  MutexLock lock(&mutex_);
  broken_ = true;
  changed_.SignalAll();
}

// What the consumer goes by: one mask for each selection, within what was asked, and as many whole rows as bits.
absl::Status RecallLane::Check(const Request& request) const {
  auto bad = [this](const char* what) {
    return absl::DataLossError(absl::StrCat("cache service ", options_.endpoint, ": a recall's answer has ", what));
  };
  const RecalledRows& rows = request.rows;
  if (rows.found.size() != request.selections.size()) return bad("another number of masks than selections");
  size_t came = 0;
  for (size_t i = 0; i < rows.found.size(); ++i) {
    if ((rows.found[i] & ~request.selections[i].row_mask) != 0) return bad("rows that were not asked for");
    came += static_cast<size_t>(std::popcount(rows.found[i]));
  }
  if (rows.row_checksums.size() != came) return bad("another number of rows than its masks say");
  if (rows.rows.size() != came * options_.layout.row_bytes()) return bad("rows of another size than the layout's");
  return absl::OkStatus();
}

std::unique_ptr<RecallLane::Request> RecallLane::TakeAnswered(const v1::RecallResponse& response, const Payload& rows) {
  MutexLock lock(&mutex_);
  const auto at = requests_.find(response.id());
  if (at == requests_.end()) return nullptr;  // too late
  Request& request = *at->second;
  if (response.found_size() > 0) request.rows.found.assign(response.found().begin(), response.found().end());
  if (response.partial()) request.rows.complete = false;
  rows.AppendTo(&request.rows.rows);
  request.rows.row_checksums.insert(request.rows.row_checksums.end(), response.row_checksums().begin(),
                                    response.row_checksums().end());
  if (response.more()) return nullptr;
  std::unique_ptr<Request> answered = std::move(at->second);
  requests_.erase(at);
  return answered;
}

void RecallLane::Take(grpc::ByteBuffer* message) {
  v1::RecallResponse response;
  Payload rows;
  if (const absl::Status good = SplitPayload(message, kRecalledPayload, &response, &rows); !good.ok()) {
    TP_LOG(Warning, "cache", "recall stream to ", options_.endpoint, ": ", good.message());
    MutexLock lock(&mutex_);
    if (context_ != nullptr) context_->TryCancel();
    return;
  }
  const std::unique_ptr<Request> answered = TakeAnswered(response, rows);
  if (answered == nullptr) return;
  if (response.code() != 0) {
    return answered->done(absl::Status(static_cast<absl::StatusCode>(response.code()), response.message()));
  }
  if (absl::Status good = Check(*answered); !good.ok()) return answered->done(std::move(good));
  int64_t wanted = 0;
  for (const RowSelection& selection : answered->selections) wanted += std::popcount(selection.row_mask);
  const int64_t came = static_cast<int64_t>(answered->rows.row_checksums.size());
  counters_.rows.fetch_add(came);
  counters_.bytes.fetch_add(static_cast<int64_t>(answered->rows.rows.size()));
  counters_.missing.fetch_add(wanted - came);
  answered->done(std::move(answered->rows));
}

}  // namespace tidepool
