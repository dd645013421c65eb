#include "cacheservice/rpc/manifest_streams.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/wire/manifest_wire.h"
#include "cacheservice/wire/messages.h"

namespace tidepool {

PutManifestStream::PutManifestStream(CacheContext* context, absl::StatusOr<Caller> caller, absl::Time deadline)
    : context_(context), caller_(std::move(caller)), deadline_(deadline) {
  StartRead(&frame_);
}

void PutManifestStream::OnDone() {
  context_->staging_bytes.fetch_sub(static_cast<int64_t>(bytes_.size()));
  delete this;
}

absl::Status PutManifestStream::Take() {
  TP_RETURN_IF_ERROR(CheckFrame("manifest", frame_.payload(), frame_.checksum()));
  if (bytes_.empty()) {
    TP_RETURN_IF_ERROR(context_->CheckTakesNew());
    expected_ = frame_.manifest_bytes();
    copy_ = frame_.copy();
    if (expected_ < 1 || expected_ > kMaxManifestWireBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("manifest_bytes: ", expected_, " is not in 1 to ", kMaxManifestWireBytes));
    }
  }
  if (frame_.payload().empty() || bytes_.size() + frame_.payload().size() > expected_) {
    return absl::InvalidArgumentError(
        absl::StrCat("manifest.payload: is empty or goes past the ", expected_, " bytes"));
  }
  TP_RETURN_IF_ERROR(context_->Stage(frame_.payload().size()));
  bytes_.append(frame_.payload());
  return absl::OkStatus();
}

void PutManifestStream::OnReadDone(bool ok) {
  if (ok) {
    if (const absl::Status status = Take(); !status.ok()) return Finish(ToGrpc(status));
    return StartRead(&frame_);
  }
  if (bytes_.empty() || bytes_.size() != expected_) {
    return Finish(ToGrpc(
        absl::InvalidArgumentError(absl::StrCat("manifest: ", bytes_.size(), " of ", expected_, " bytes came"))));
  }
  const absl::Status queued = context_->Run([this] { Finish(ToGrpc(Store())); });
  if (!queued.ok()) Finish(ToGrpc(queued));
}

absl::Status PutManifestStream::Store() {
  TP_ASSIGN_OR_RETURN(const SessionManifest manifest, ManifestFromWire(bytes_));
  TP_RETURN_IF_ERROR(IsTenantOf(caller_, manifest.tenant));
  return copy_ ? context_->manifests->PutCopy(manifest, deadline_) : context_->manifests->Put(manifest, deadline_);
}

GetManifestStream::GetManifestStream(CacheContext* context, const absl::StatusOr<Caller>& caller, absl::Time deadline,
                                     const v1::GetManifestRequest* request)
    : context_(context) {
  if (const absl::Status own = IsTenantOf(caller, request->tenant()); !own.ok()) {
    Finish(ToGrpc(own));
    return;
  }
  const absl::Status queued =
      context_->Run([this, deadline, tenant = request->tenant(), session = request->session_id(),
                     revision_only = request->revision_only()] {
        if (revision_only) {
          absl::StatusOr<std::optional<int64_t>> revision = context_->manifests->Revision(tenant, session);
          if (!revision.ok()) return Finish(ToGrpc(revision.status()));
          if (revision->has_value()) return SendRevision(**revision);
          return Finish(ToGrpc(absl::NotFoundError(absl::StrCat("session '", session, "' is not stored"))));
        }
        absl::StatusOr<std::optional<SessionManifest>> manifest = context_->manifests->Get(tenant, session, deadline);
        if (!manifest.ok()) return Finish(ToGrpc(manifest.status()));
        if (!manifest->has_value())
          return Finish(ToGrpc(absl::NotFoundError(absl::StrCat("session '", session, "' is not stored"))));
        bytes_ = ManifestToWire(**manifest);
        SendNext();
      });
  if (!queued.ok()) Finish(ToGrpc(queued));
}

void GetManifestStream::SendRevision(int64_t revision) {
  frame_.set_revision(revision);
  StartWrite(&frame_);
}

void GetManifestStream::SendNext() {
  frame_.Clear();
  if (offset_ == 0) frame_.set_manifest_bytes(bytes_.size());
  frame_.set_payload(bytes_.substr(offset_, FrameBytesFor(bytes_.size())));
  frame_.set_checksum(Checksum32(frame_.payload()));
  offset_ += frame_.payload().size();
  StartWrite(&frame_);
}

void GetManifestStream::OnWriteDone(bool ok) {
  if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker is gone"));
  if (offset_ == bytes_.size()) return Finish(grpc::Status::OK);
  SendNext();
}

}  // namespace tidepool
