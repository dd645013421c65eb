#include "cacheservice/remote/remote_cache.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "cacheservice/remote/backoff.h"
#include "cacheservice/remote/fetch_call.h"
#include "cacheservice/remote/fetched_values.h"
#include "cacheservice/remote/offload_lane.h"
#include "cacheservice/remote/recall_lane.h"
#include "cacheservice/remote/split_recall.h"
#include "cacheservice/remote/stream_end.h"
#include "cacheservice/wire/manifest_wire.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"

namespace tidepool {
namespace {

std::shared_ptr<grpc::Channel> MakeChannel(const RemoteCacheOptions& options, int number) {
  grpc::ChannelArguments arguments;
  arguments.SetInt("tidepool.channel", number);  // channels with equal arguments would share a connection
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // or keepalive ends after two pings on an idle stream
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // How long an attempt to connect may take at least, whatever the name says: a busy machine, or a handshake of TLS
  // over a long way, needs more than the first pauses.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  // Who does not wait for the service is told when it is back, and wants the streams soon then.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, options.wait_for_service ? 1000 : 200);
  return OpenChannel(options.security.get(), options.endpoint, &arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(CodeForCaller(status.error_code()), absl::StrCat("cache service: ", status.error_message()));
}

// At least 1: 0 would say that nothing is to be left out.
uint64_t RateForWire(const ReadTerms& terms) {
  if (terms.compute_bytes_per_second <= 0) return 0;
  return static_cast<uint64_t>(std::clamp(terms.compute_bytes_per_second, 1.0, 1e15));
}

// Of one call. gRPC may give the next attempts the connection that has broken just now, so there are pauses after the
// second: 0.7 s in all.
constexpr int kMostAttempts = 6;

bool Broke(const absl::Status& status) { return absl::IsUnavailable(status); }
template <typename T>
bool Broke(const absl::StatusOr<T>& answer) {
  return absl::IsUnavailable(answer.status());
}

}  // namespace

class RemoteCache::Impl {
 public:
  explicit Impl(RemoteCacheOptions options)
      : options_(std::move(options)),
        calls_(MakeChannel(options_, 0)),
        stub_(v1::CacheStore::NewStub(calls_)),
        offload_(options_, MakeChannel(options_, 1)),
        recall_(options_, MakeChannel(options_, 2)) {}

  // One call, which Interrupt cancels.
  class Call {
   public:
    Call(Impl* impl, absl::Time deadline) : impl_(impl) {
      context.set_deadline(absl::ToChronoTime(deadline));
      // The service may be on its way back.
      context.set_wait_for_ready(impl->options_.wait_for_service);
      MutexLock lock(&impl_->mutex_);
      impl_->open_.insert(&context);
    }
    ~Call() {
      MutexLock lock(&impl_->mutex_);
      impl_->open_.erase(&context);
    }
    grpc::ClientContext context;

   private:
    Impl* const impl_;
  };

  // Makes a call that changes nothing when it is repeated again when its connection has broken; it then waits for the
  // service. Who does not wait for the service asks another one instead.
  template <typename Call>
  auto Repeated(const Call& call) const {
    const int interrupts = interrupts_;
    auto answer = call();
    Backoff pauses;
    for (int attempt = 1; attempt < kMostAttempts && options_.wait_for_service && Broke(answer); ++attempt) {
      if (attempt > 1) absl::SleepFor(absl::FromChrono(pauses.Next()));
      if (interrupts_ != interrupts) break;
      answer = call();
    }
    return answer;
  }

  void CancelCalls() {
    ++interrupts_;
    MutexLock lock(&mutex_);
    for (grpc::ClientContext* context : open_) context->TryCancel();
  }

  absl::StatusOr<v1::LookupResponse> Lookup(absl::Span<const BlockKey> keys, bool each, const ReadTerms& terms);

  const RemoteCacheOptions options_;
  const std::shared_ptr<grpc::Channel> calls_;
  const std::unique_ptr<v1::CacheStore::Stub> stub_;
  OffloadLane offload_;
  RecallLane recall_;
  std::atomic<int64_t> fetched_blocks_{0}, fetched_bytes_{0}, refetched_blocks_{0};
  std::atomic<int> interrupts_{0};
  Mutex mutex_;
  std::set<grpc::ClientContext*> open_ ABSL_GUARDED_BY(mutex_);
};

RemoteCache::RemoteCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RemoteCache::~RemoteCache() = default;

absl::StatusOr<std::unique_ptr<RemoteCache>> RemoteCache::Connect(RemoteCacheOptions options) {
  if (options.endpoint.empty())
    return absl::InvalidArgumentError("endpoint: is empty, host:port or unix:PATH is needed");
  if (options.tenant.empty() || options.tenant.size() > kMaxTenantBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("tenant: ", options.tenant.size(), " characters, 1 to ", kMaxTenantBytes, " are allowed"));
  }
  if (options.write_behind_bytes < (size_t{1} << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("write_behind_bytes: ", options.write_behind_bytes, ", at least 1 MiB"));
  }
  return std::unique_ptr<RemoteCache>(new RemoteCache(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<v1::LookupResponse> RemoteCache::Impl::Lookup(absl::Span<const BlockKey> keys, bool each,
                                                             const ReadTerms& terms) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(std::min(terms.deadline, absl::Now() + options_.lookup_patience)));
  v1::LookupRequest request;
  for (const BlockKey& key : keys) request.add_keys(std::string(key.AsString()));
  request.set_layers(options_.layout.layers);
  request.set_each(each);
  request.set_compute_bytes_per_second(RateForWire(terms));
  v1::LookupResponse response;
  TP_RETURN_IF_ERROR(FromGrpc(stub_->Lookup(&context, request, &response)));
  return response;
}

absl::StatusOr<PrefixHit> RemoteCache::LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) {
  chain = chain.subspan(0, static_cast<size_t>(kMaxWireSelections));
  TP_ASSIGN_OR_RETURN(const v1::LookupResponse response, impl_->Lookup(chain, /*each=*/false, terms));
  PrefixHit hit;
  hit.blocks = std::clamp<int>(response.stored_prefix(), 0, static_cast<int>(chain.size()));
  hit.slow_blocks = std::clamp<int>(response.slow_blocks(), 0, static_cast<int>(chain.size()) - hit.blocks);
  return hit;
}

absl::StatusOr<std::vector<RemoteCache::Stored>> RemoteCache::LookupEach(absl::Span<const BlockKey> keys,
                                                                         const ReadTerms& terms) {
  TIDEPOOL_CHECK(keys.size() <= static_cast<size_t>(kMaxWireSelections));
  TP_ASSIGN_OR_RETURN(const v1::LookupResponse response, impl_->Lookup(keys, /*each=*/true, terms));
  if (response.stored_size() != static_cast<int>(keys.size())) {
    return absl::DataLossError(
        absl::StrCat("cache service: ", response.stored_size(), " answers for ", keys.size(), " keys"));
  }
  std::vector<Stored> stored(keys.size(), Stored::kNo);
  for (int i = 0; i < response.stored_size(); ++i) {
    if (response.stored(i)) {
      stored[i] = Stored::kYes;
    } else if (i < response.slow_size() && response.slow(i)) {  // a service of an older version does not say it
      stored[i] = Stored::kSlow;
    }
  }
  return stored;
}

absl::StatusOr<PodIdentity> RemoteCache::Probe(absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  v1::ProbeResponse response;
  TP_RETURN_IF_ERROR(FromGrpc(impl_->stub_->Probe(&context, {}, &response)));
  if (response.pod_name().empty() || response.pod_name().size() > kMaxPodNameBytes) {
    return absl::DataLossError(absl::StrCat("cache service: a pod name of ", response.pod_name().size(),
                                            " characters, 1 to ", kMaxPodNameBytes, " are allowed"));
  }
  return PodIdentity{.name = response.pod_name(), .draining = response.draining()};
}

void RemoteCache::Offload(BlockId id, std::string value, OffloadOptions options,
                          std::function<void(absl::Status)> done) {
  impl_->offload_.Offload(id, std::move(value), options, /*now=*/false,
                          [done = std::move(done)](absl::Status status, std::string) { done(std::move(status)); });
}

void RemoteCache::OffloadOrReturn(BlockId id, std::string value, OffloadOptions options, bool now,
                                  std::function<void(absl::Status, std::string value)> done) {
  impl_->offload_.Offload(id, std::move(value), options, now, std::move(done));
}

void RemoteCache::Interrupt() {
  impl_->CancelCalls();
  impl_->offload_.Interrupt();
  impl_->recall_.Interrupt();
}

void RemoteCache::Resume() {
  impl_->offload_.Resume();
  impl_->recall_.Resume();
}

void RemoteCache::Recall(std::vector<RowSelection> selections, absl::Time deadline,
                         std::function<void(absl::StatusOr<RecalledRows>)> done) {
  const size_t row_bytes = impl_->options_.layout.row_bytes();
  std::vector<size_t> sizes;
  for (size_t first = 0; first < selections.size(); first += sizes.back()) {
    sizes.push_back(FitsOneRequest(selections, first, row_bytes));
  }
  if (sizes.size() <= 1) return impl_->recall_.Recall(std::move(selections), deadline, std::move(done));
  std::vector<RecallDone> dones = JoinRecalls(sizes, std::move(done));
  auto first = selections.begin();
  for (size_t part = 0; part < sizes.size(); ++part) {
    const auto last = first + static_cast<int64_t>(sizes[part]);
    impl_->recall_.Recall({first, last}, deadline, std::move(dones[part]));
    first = last;
  }
}

absl::StatusOr<std::vector<std::optional<std::string>>> RemoteCache::FetchBlocks(absl::Span<const BlockId> ids,
                                                                                 const ReadTerms& terms) {
  TP_ASSIGN_OR_RETURN(FetchedValues fetched,
                      impl_->Repeated([&] { return FetchOnce(ids, /*unchecked=*/true, terms); }));
  if (const std::vector<size_t> damaged = fetched.damaged(); !damaged.empty()) {
    std::vector<BlockId> again;
    for (const size_t index : damaged) again.push_back(ids[index]);
    TP_LOG(Warning, "cache", damaged.size(), " blocks came damaged from ", impl_->options_.endpoint,
           " and are fetched again");
    impl_->refetched_blocks_.fetch_add(static_cast<int64_t>(damaged.size()));
    TP_ASSIGN_OR_RETURN(FetchedValues others,
                        impl_->Repeated([&] { return FetchOnce(again, /*unchecked=*/false, terms); }));
    fetched.Replace(damaged, std::move(others));
  }
  std::vector<std::optional<std::string>> values = std::move(fetched).Values();
  for (const std::optional<std::string>& value : values) {
    if (!value.has_value()) continue;
    impl_->fetched_blocks_.fetch_add(1);
    impl_->fetched_bytes_.fetch_add(static_cast<int64_t>(value->size()));
  }
  return values;
}

absl::StatusOr<FetchedValues> RemoteCache::FetchOnce(absl::Span<const BlockId> ids, bool unchecked,
                                                     const ReadTerms& terms) {
  Impl::Call call(impl_.get(), terms.deadline);
  v1::FetchBlocksRequest request;
  request.set_compute_bytes_per_second(RateForWire(terms));
  for (const BlockId& id : ids) *request.add_blocks() = RefOf(id);
  request.set_unchecked(unchecked);
  FetchedValues fetched(ids.size(), unchecked);
  FetchCall fetch(impl_->calls_.get(), &call.context, &request,
                  [&fetched](grpc::ByteBuffer* message) { return fetched.Take(message).ok(); });
  const grpc::Status status = fetch.Finish();
  TP_RETURN_IF_ERROR(fetched.bad());
  TP_RETURN_IF_ERROR(FromGrpc(status));
  TP_RETURN_IF_ERROR(fetched.CheckComplete());
  return fetched;
}

BlockCacheStats RemoteCache::Stats() const {
  BlockCacheStats stats;
  stats.offloaded_blocks = impl_->offload_.counters().blocks;
  stats.offloaded_bytes = impl_->offload_.counters().bytes;
  stats.offload_failures = impl_->offload_.counters().failures;
  stats.resent_blocks = impl_->offload_.counters().resent;
  stats.recalled_rows = impl_->recall_.counters().rows;
  stats.recalled_bytes = impl_->recall_.counters().bytes;
  stats.missing_rows = impl_->recall_.counters().missing;
  stats.fetched_blocks = impl_->fetched_blocks_;
  stats.fetched_bytes = impl_->fetched_bytes_;
  stats.refetched_blocks = impl_->refetched_blocks_;
  stats.reconnects = impl_->offload_.counters().reconnects + impl_->recall_.counters().reconnects;
  return stats;
}

absl::Status RemoteCache::Put(const SessionManifest& manifest, absl::Time deadline) {
  int attempts = 0;
  const absl::Status put = impl_->Repeated([&] {
    ++attempts;
    return SendManifest(manifest, /*copy=*/false, deadline);
  });
  if (attempts == 1 || !absl::IsAborted(put)) return put;
  // Perhaps it was stored and the connection broke before that was said: then storing a copy changes nothing.
  TP_ASSIGN_OR_RETURN(const std::optional<int64_t> stored, Revision(manifest.tenant, manifest.session_id, deadline));
  return stored == manifest.revision ? PutCopy(manifest, deadline) : put;
}

absl::Status RemoteCache::PutCopy(const SessionManifest& manifest, absl::Time deadline) {
  return impl_->Repeated([&] { return SendManifest(manifest, /*copy=*/true, deadline); });
}

absl::Status RemoteCache::SendManifest(const SessionManifest& manifest, bool copy, absl::Time deadline) {
  const std::string bytes = ManifestToWire(manifest);
  if (bytes.size() > kMaxManifestWireBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("session '", manifest.session_id, "': its manifest has ",
                                                     bytes.size(), " bytes, at most ", kMaxManifestWireBytes));
  }
  Impl::Call call(impl_.get(), deadline);
  v1::PutManifestResponse response;
  auto writer = impl_->stub_->PutManifest(&call.context, &response);
  for (size_t offset = 0; offset < bytes.size();) {
    v1::ManifestFrame frame;
    if (offset == 0) {
      frame.set_manifest_bytes(bytes.size());
      frame.set_copy(copy);
    }
    frame.set_payload(bytes.substr(offset, FrameBytesFor(bytes.size())));
    frame.set_checksum(Checksum32(frame.payload()));
    offset += frame.payload().size();
    if (!writer->Write(frame)) break;  // Finish says why
  }
  writer->WritesDone();
  return FromGrpc(writer->Finish());
}

absl::StatusOr<std::optional<SessionManifest>> RemoteCache::Get(std::string_view tenant, std::string_view session_id,
                                                                absl::Time deadline) {
  return impl_->Repeated([&] { return GetOnce(tenant, session_id, deadline); });
}

absl::StatusOr<std::optional<SessionManifest>> RemoteCache::GetOnce(std::string_view tenant,
                                                                    std::string_view session_id, absl::Time deadline) {
  Impl::Call call(impl_.get(), deadline);
  v1::GetManifestRequest request;
  request.set_tenant(std::string(tenant));
  request.set_session_id(std::string(session_id));
  auto reader = impl_->stub_->GetManifest(&call.context, request);
  std::string bytes;
  uint64_t expected = 0;
  v1::ManifestFrame frame;
  absl::Status bad;
  while (bad.ok() && reader->Read(&frame)) {
    bad = CheckFrame("manifest", frame.payload(), frame.checksum());
    if (bytes.empty()) expected = frame.manifest_bytes();
    bytes.append(frame.payload());
    if (bytes.size() > kMaxManifestWireBytes) bad = absl::DataLossError("cache service: a manifest is too large");
  }
  if (!bad.ok()) call.context.TryCancel();
  const grpc::Status status = reader->Finish();
  TP_RETURN_IF_ERROR(bad);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
  TP_RETURN_IF_ERROR(FromGrpc(status));
  if (bytes.size() != expected) return absl::DataLossError("cache service: a manifest was cut off");
  TP_ASSIGN_OR_RETURN(SessionManifest manifest, ManifestFromWire(bytes));
  return manifest;
}

absl::StatusOr<std::optional<int64_t>> RemoteCache::Revision(std::string_view tenant, std::string_view session_id,
                                                             absl::Time deadline) {
  return impl_->Repeated([&] { return RevisionOnce(tenant, session_id, deadline); });
}

absl::StatusOr<std::optional<int64_t>> RemoteCache::RevisionOnce(std::string_view tenant, std::string_view session_id,
                                                                 absl::Time deadline) {
  Impl::Call call(impl_.get(), deadline);
  v1::GetManifestRequest request;
  request.set_tenant(std::string(tenant));
  request.set_session_id(std::string(session_id));
  request.set_revision_only(true);
  auto reader = impl_->stub_->GetManifest(&call.context, request);
  v1::ManifestFrame frame;
  if (!reader->Read(&frame)) {
    const grpc::Status status = reader->Finish();
    if (status.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
    TP_RETURN_IF_ERROR(FromGrpc(status));
    return absl::DataLossError("cache service: no revision was sent");
  }
  const int64_t revision = frame.revision();
  while (reader->Read(&frame)) {
  }
  TP_RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  if (revision < 1) return absl::DataLossError(absl::StrCat("cache service: revision ", revision));
  return revision;
}

absl::Status RemoteCache::Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) {
  v1::DeleteSessionRequest request;
  request.set_tenant(std::string(tenant));
  request.set_session_id(std::string(session_id));
  return impl_->Repeated([&] {
    Impl::Call call(impl_.get(), deadline);
    v1::DeleteSessionResponse response;
    return FromGrpc(impl_->stub_->DeleteSession(&call.context, request, &response));
  });
}

}  // namespace tidepool
