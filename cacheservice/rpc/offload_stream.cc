#include "cacheservice/rpc/offload_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/wire/messages.h"
#include "policies/kv/block_codec.h"

namespace tidepool {
namespace {

constexpr int64_t kCreditBytes = int64_t{16} << 20;
constexpr size_t kMostReceived = 2;  // messages that wait for the one that is taken

}  // namespace

OffloadStream::OffloadStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer)
    : context_(context),
      caller_(std::move(caller)),
      meter_(context->streams.Add(StreamStats::Kind::kOffload, std::move(peer))),
      outbox_(this) {
  StartRead(&raw_);
}

void OffloadStream::OnDone() {
  context_->staging_bytes.fetch_sub(static_cast<int64_t>(value_.value.size()));
  delete this;
}

void OffloadStream::OnReadDone(bool ok) {
  Message message;
  message.end = !ok;
  if (ok) message.status = SplitPayload(&raw_, kBlockFramePayload, &message.request, &message.payload);
  {
    MutexLock lock(&mutex_);
    reading_ = false;
    ended_ = !ok;
    received_.push_back(std::move(message));
    ReadOn();
  }
  TakeReceived();
}

// Under the mutex, so that nothing closes the stream between the look and the read.
void OffloadStream::ReadOn() {
  if (reading_ || ended_ || received_.size() >= kMostReceived) return;
  reading_ = true;
  StartRead(&raw_);
}

void OffloadStream::TakeReceived() {
  for (;;) {
    Message message;
    {
      MutexLock lock(&mutex_);
      if (taking_ || received_.empty()) return;
      taking_ = true;
      message = std::move(received_.front());
      received_.pop_front();
    }
    const absl::Status status = message.end ? absl::OkStatus() : Take(message);
    const bool close = message.end || !status.ok();
    {
      MutexLock lock(&mutex_);
      ended_ = ended_ || close;
      if (close) {
        received_.clear();
      } else {
        taking_ = false;
      }
      ReadOn();
    }
    if (close) return outbox_.Close(ToGrpc(status));
  }
}

absl::Status OffloadStream::Take(const Message& message) {
  TP_RETURN_IF_ERROR(message.status);
  return open_ ? TakeFrame(message) : TakeHello(message.request);
}

absl::Status OffloadStream::TakeHello(const v1::OffloadRequest& request) {
  if (!request.has_hello()) return absl::InvalidArgumentError("hello: must be the first message");
  TP_RETURN_IF_ERROR(IsTenantOf(caller_, request.hello().tenant()));
  if (request.hello().any_shape()) {
    TP_RETURN_IF_ERROR(CheckHello(request.hello()));
  } else {
    TP_ASSIGN_OR_RETURN(KvLayout layout, LayoutOfHello(request.hello()));
    TP_RETURN_IF_ERROR(context_->CheckLayout(layout));
    layout_ = std::move(layout);
  }
  tenant_ = request.hello().tenant();
  meter_->SetTenant(tenant_);
  open_ = true;
  v1::OffloadResponse response;
  response.mutable_accepted()->set_credit_bytes(kCreditBytes);
  response.mutable_accepted()->set_takes_unchecked(true);  // the store verifies what BlockView::Parse does not
  outbox_.Send(response);
  return absl::OkStatus();
}

absl::Status OffloadStream::TakeFrame(const Message& message) {
  if (!message.request.has_frame()) return absl::InvalidArgumentError("frame: must follow the hello");
  const v1::BlockFrame& frame = message.request.frame();
  if (value_bytes_ == 0) {  // a value begins
    if (frame.sequence() != sequence_ + 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("frame.sequence: ", frame.sequence(), ", ", sequence_ + 1, " is next"));
    }
    if (frame.value_bytes() < 1 || frame.value_bytes() > kMaxWireValueBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("frame.value_bytes: ", frame.value_bytes(), " is not in 1 to ", kMaxWireValueBytes));
    }
    TP_ASSIGN_OR_RETURN(value_.id, BlockOf(frame.block()));
    TP_ASSIGN_OR_RETURN(value_.parent, ParentOf(frame));
    TP_ASSIGN_OR_RETURN(value_.tenant, TenantOfFrame(frame, tenant_));
    TP_RETURN_IF_ERROR(IsTenantOf(caller_, value_.tenant));
    value_.durable = frame.durable();
    value_bytes_ = frame.value_bytes();
    sequence_ = frame.sequence();
    if (unanswered_bytes_.fetch_add(static_cast<int64_t>(value_bytes_)) + static_cast<int64_t>(value_bytes_) >
        kCreditBytes + static_cast<int64_t>(kMaxWireValueBytes)) {
      return absl::ResourceExhaustedError(
          absl::StrCat("frame: more than the granted ", kCreditBytes, " bytes are unanswered"));
    }
    value_.value.reserve(value_bytes_);
  } else if (frame.sequence() != sequence_) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame.sequence: ", frame.sequence(), ", value ", sequence_, " is not complete"));
  }
  const size_t before = value_.value.size();
  if (before + message.payload.size() > value_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame.payload: value ", sequence_, " is larger than its ", value_bytes_, " bytes"));
  }
  if (message.payload.size() == 0) return absl::InvalidArgumentError("frame.payload: is empty");
  TP_RETURN_IF_ERROR(context_->Stage(message.payload.size()));
  message.payload.AppendTo(&value_.value);
  TP_RETURN_IF_ERROR(CheckFrame("frame", std::string_view(value_.value).substr(before),
                                frame.unchecked() ? std::nullopt : std::optional<uint32_t>(frame.checksum())));
  if (value_.value.size() < value_bytes_) return absl::OkStatus();

  absl::Status fits = context_->CheckTakesNew();
  if (!fits.ok()) {
    // Answered for each value, so that what was taken before is still acknowledged.
  } else if (absl::StatusOr<BlockView> view = BlockView::Parse(value_.value); !view.ok()) {
    fits = view.status();
  } else if (layout_.has_value()) {
    fits = view->CheckLayout(*layout_);
  }
  const int64_t bytes = static_cast<int64_t>(value_bytes_);
  outbox_.BeginWork();
  auto done = [this, sequence = sequence_, bytes, asked = meter_->Asked()](absl::StatusOr<Tier> tier) {
    meter_->Answered(asked, static_cast<uint64_t>(bytes));
    v1::OffloadResponse response;
    v1::OffloadResult& result = *response.mutable_result();
    result.set_sequence(sequence);
    if (tier.ok()) {
      result.set_tier(*tier == Tier::kDisk ? v1::STORAGE_TIER_DISK : v1::STORAGE_TIER_MEMORY);
    } else {
      result.set_code(static_cast<int>(tier.status().code()));
      result.set_message(std::string(tier.status().message()));
    }
    context_->staging_bytes.fetch_sub(bytes);
    unanswered_bytes_.fetch_sub(bytes);
    outbox_.Send(response);
    outbox_.EndWork();
  };
  BlockPut put = std::exchange(value_, BlockPut());
  value_bytes_ = 0;
  if (!fits.ok()) {
    done(fits);
  } else if (const auto stored = context_->blocks->PutAtOnce(&put); stored.has_value()) {
    done(*stored);
  } else {
    context_->puts.Add(std::move(put), std::move(done));
  }
  return absl::OkStatus();
}

}  // namespace tidepool
