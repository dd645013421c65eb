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

}  // namespace

OffloadStream::OffloadStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer)
    : context_(context),
      caller_(std::move(caller)),
      meter_(context->streams.Add(StreamStats::Kind::kOffload, std::move(peer))),
      outbox_(this) {
  context_->open_streams.fetch_add(1);
  StartRead(&raw_);
}

void OffloadStream::OnDone() {
  context_->staging_bytes.fetch_sub(static_cast<int64_t>(value_.value.size()));
  context_->open_streams.fetch_sub(1);
  delete this;
}

void OffloadStream::OnReadDone(bool ok) {
  if (!ok) return outbox_.Close(grpc::Status::OK);  // the worker has ended the stream, or is gone
  if (const absl::Status status = Take(); !status.ok()) return outbox_.Close(ToGrpc(status));
  StartRead(&raw_);
}

absl::Status OffloadStream::Take() {
  TP_RETURN_IF_ERROR(SplitPayload(&raw_, kBlockFramePayload, &request_, &payload_));
  const absl::Status taken = open_ ? TakeFrame() : TakeHello();
  payload_ = Payload();  // gRPC's buffers go back before the next message comes
  return taken;
}

absl::Status OffloadStream::TakeHello() {
  if (!request_.has_hello()) return absl::InvalidArgumentError("hello: must be the first message");
  TP_RETURN_IF_ERROR(IsTenantOf(caller_, request_.hello().tenant()));
  if (request_.hello().any_shape()) {
    TP_RETURN_IF_ERROR(CheckHello(request_.hello()));
  } else {
    TP_ASSIGN_OR_RETURN(KvLayout layout, LayoutOfHello(request_.hello()));
    TP_RETURN_IF_ERROR(context_->CheckLayout(layout));
    layout_ = std::move(layout);
  }
  tenant_ = request_.hello().tenant();
  meter_->SetTenant(tenant_);
  open_ = true;
  v1::OffloadResponse response;
  response.mutable_accepted()->set_credit_bytes(kCreditBytes);
  outbox_.Send(response);
  return absl::OkStatus();
}

absl::Status OffloadStream::TakeFrame() {
  if (!request_.has_frame()) return absl::InvalidArgumentError("frame: must follow the hello");
  const v1::BlockFrame& frame = request_.frame();
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
  if (before + payload_.size() > value_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("frame.payload: value ", sequence_, " is larger than its ", value_bytes_, " bytes"));
  }
  if (payload_.size() == 0) return absl::InvalidArgumentError("frame.payload: is empty");
  TP_RETURN_IF_ERROR(context_->Stage(payload_.size()));
  payload_.AppendTo(&value_.value);
  TP_RETURN_IF_ERROR(CheckFrame("frame", std::string_view(value_.value).substr(before), frame.checksum()));
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
  if (fits.ok()) {
    context_->puts.Add(std::move(put), std::move(done));
  } else {
    done(fits);
  }
  return absl::OkStatus();
}

}  // namespace tidepool
