#include "cacheservice/rpc/recall_stream.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/raw_message.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"

namespace tidepool {
namespace {

// Of one stream: the requests at work, and the bytes of their answers until the worker has taken them.
constexpr int kMostAnswering = 64;
constexpr int64_t kMostAnswerBytes = int64_t{64} << 20;

}  // namespace

RecallStream::RecallStream(CacheContext* context, absl::StatusOr<Caller> caller, std::string peer)
    : context_(context),
      caller_(std::move(caller)),
      meter_(context->streams.Add(StreamStats::Kind::kRecall, std::move(peer))),
      outbox_(this) {
  StartRead(&raw_);
}

void RecallStream::OnDone() { delete this; }

void RecallStream::OnReadDone(bool ok) {
  if (!ok) return outbox_.Close(grpc::Status::OK);
  if (const absl::Status status = Take(); !status.ok()) return outbox_.Close(ToGrpc(status));
  held_.store(true);
  ReadIfHeld();
}

// While the read is held nothing closes the stream, so it is still there.
void RecallStream::OnWriteDone(bool ok) {
  outbox_.OnWriteDone(ok);
  ReadIfHeld();
}

bool RecallStream::HasRoom() const {
  return answering_.load() < kMostAnswering &&
         answering_bytes_.load() + static_cast<int64_t>(outbox_.queued_bytes()) < kMostAnswerBytes;
}

void RecallStream::ReadIfHeld() {
  if (HasRoom() && held_.exchange(false)) StartRead(&raw_);
}

absl::Status RecallStream::Take() {
  TP_RETURN_IF_ERROR(ParseRaw(&raw_, &request_));
  if (!layout_.has_value()) {
    if (!request_.has_hello()) return absl::InvalidArgumentError("hello: must be the first message");
    TP_ASSIGN_OR_RETURN(KvLayout layout, LayoutOfHello(request_.hello()));
    TP_RETURN_IF_ERROR(IsTenantOf(caller_, request_.hello().tenant()));
    TP_RETURN_IF_ERROR(context_->CheckLayout(layout));
    layout_ = std::move(layout);
    meter_->SetTenant(request_.hello().tenant());
    return absl::OkStatus();
  }
  if (!request_.has_rows()) return absl::InvalidArgumentError("rows: must follow the hello");
  const v1::RowsRequest& rows = request_.rows();
  if (rows.selections_size() > kMaxWireSelections) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.selections: ", rows.selections_size(), ", at most ", kMaxWireSelections));
  }
  std::vector<RowSelection> selections;
  selections.reserve(rows.selections_size());
  int64_t bytes = 0;
  for (const v1::RowSelectionRef& ref : rows.selections()) {
    TP_ASSIGN_OR_RETURN(RowSelection selection, SelectionOf(ref));
    bytes += std::popcount(selection.row_mask) * static_cast<int64_t>(layout_->row_bytes());
    selections.push_back(selection);
  }
  if (bytes > kMaxWireRecallBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows.selections: rows of ", bytes, " bytes, at most ", kMaxWireRecallBytes));
  }
  const absl::Time deadline =
      rows.deadline_ms() > 0 ? absl::Now() + absl::Milliseconds(rows.deadline_ms()) : absl::InfiniteFuture();
  answering_.fetch_add(1);
  answering_bytes_.fetch_add(bytes);
  outbox_.BeginWork();
  context_->pool.Run(
      [this, id = rows.id(), selections = std::move(selections), deadline, bytes, asked = meter_->Asked()] {
        meter_->Answered(asked, Answer(id, selections, deadline));
        answering_.fetch_sub(1);
        answering_bytes_.fetch_sub(bytes);
        ReadIfHeld();
        outbox_.EndWork();
      });
  return absl::OkStatus();
}

uint64_t RecallStream::Answer(uint64_t id, const std::vector<RowSelection>& selections, absl::Time deadline) {
  absl::StatusOr<RecalledRows> gathered = context_->blocks->GatherRows(selections, deadline);
  v1::RecallResponse response;
  response.set_id(id);
  if (!gathered.ok()) {
    response.set_code(static_cast<int>(gathered.status().code()));
    response.set_message(std::string(gathered.status().message()));
    outbox_.Send(response);
    return 0;
  }
  const uint64_t bytes = gathered->rows.size();
  for (uint64_t mask : gathered->found) response.add_found(mask);
  response.set_partial(!gathered->complete);
  const size_t rows = gathered->row_checksums.size();
  const size_t row_bytes = rows > 0 ? gathered->rows.size() / rows : 0;
  const size_t at_once = row_bytes > 0 ? std::max<size_t>(1, kMaxFrameBytes / row_bytes) : 0;
  const auto payload = std::make_shared<const std::string>(std::move(gathered->rows));
  for (size_t first = 0; first < rows || first == 0;) {
    const size_t count = std::min(at_once, rows - first);
    response.mutable_row_checksums()->Add(gathered->row_checksums.begin() + static_cast<std::ptrdiff_t>(first),
                                          gathered->row_checksums.begin() + static_cast<std::ptrdiff_t>(first + count));
    const grpc::Slice sent = SharedSlice(payload, first * row_bytes, count * row_bytes);
    first += count;
    response.set_more(first < rows);
    outbox_.SendRaw(WithPayload(response, kRecalledPayload, sent));
    if (first >= rows) break;
    response = v1::RecallResponse();
    response.set_id(id);
  }
  return bytes;
}

}  // namespace tidepool
