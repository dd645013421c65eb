#include "cacheservice/remote/remote_cache.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "cacheservice/remote/offload_lane.h"
#include "cacheservice/remote/recall_lane.h"
#include "cacheservice/remote/split_recall.h"
#include "cacheservice/remote/stream_end.h"
#include "cacheservice/wire/manifest_wire.h"
#include "cacheservice/wire/messages.h"

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
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return OpenChannel(options.security.get(), options.endpoint, &arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(CodeForCaller(status.error_code()), absl::StrCat("cache service: ", status.error_message()));
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

  // The service may be on its way back: a call waits for it until the deadline.
  static void Prepare(grpc::ClientContext& context, absl::Time deadline) {
    context.set_deadline(absl::ToChronoTime(deadline));
    context.set_wait_for_ready(true);
  }

  const RemoteCacheOptions options_;
  const std::shared_ptr<grpc::Channel> calls_;
  const std::unique_ptr<v1::CacheStore::Stub> stub_;
  OffloadLane offload_;
  RecallLane recall_;
  std::atomic<int64_t> fetched_blocks_{0}, fetched_bytes_{0};
};

RemoteCache::RemoteCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RemoteCache::~RemoteCache() = default;

absl::StatusOr<std::unique_ptr<RemoteCache>> RemoteCache::Connect(RemoteCacheOptions options) {
  if (options.endpoint.empty())
    return absl::InvalidArgumentError("endpoint: is empty, host:port or unix:PATH is needed");
  if (options.tenant.empty() || options.tenant.size() > 128) {
    return absl::InvalidArgumentError(
        absl::StrCat("tenant: ", options.tenant.size(), " characters, 1 to 128 are allowed"));
  }
  if (options.write_behind_bytes < (size_t{1} << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("write_behind_bytes: ", options.write_behind_bytes, ", at least 1 MiB"));
  }
  return std::unique_ptr<RemoteCache>(new RemoteCache(std::make_unique<Impl>(std::move(options))));
}

absl::StatusOr<int> RemoteCache::LookupPrefix(absl::Span<const BlockKey> chain, absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(std::min(deadline, absl::Now() + impl_->options_.lookup_patience)));
  v1::LookupRequest request;
  const size_t most = static_cast<size_t>(kMaxWireSelections);
  for (const BlockKey& key : chain.subspan(0, most)) request.add_keys(std::string(key.AsString()));
  request.set_layers(impl_->options_.layout.layers);
  v1::LookupResponse response;
  TP_RETURN_IF_ERROR(FromGrpc(impl_->stub_->Lookup(&context, request, &response)));
  return std::clamp<int>(response.stored_prefix(), 0, request.keys_size());
}

void RemoteCache::Offload(BlockId id, std::string value, OffloadOptions options,
                          std::function<void(absl::Status)> done) {
  impl_->offload_.Offload(id, std::move(value), options, std::move(done));
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
                                                                                 absl::Time deadline) {
  grpc::ClientContext context;
  Impl::Prepare(context, deadline);
  v1::FetchBlocksRequest request;
  for (const BlockId& id : ids) *request.add_blocks() = RefOf(id);
  std::vector<std::optional<std::string>> values(ids.size());
  std::vector<size_t> expected(ids.size(), 0);
  auto reader = impl_->stub_->FetchBlocks(&context, request);
  v1::FetchBlocksResponse frame;
  absl::Status bad;
  while (bad.ok() && reader->Read(&frame)) {
    if (frame.index() >= ids.size()) {
      bad = absl::DataLossError(absl::StrCat("cache service: a block was sent that nobody asked for, ", frame.index()));
    } else if (!frame.missing()) {
      bad = CheckFrame("block", frame.payload(), frame.checksum());
      std::optional<std::string>& value = values[frame.index()];
      if (!value.has_value()) {
        value.emplace();
        expected[frame.index()] = frame.value_bytes();
        if (frame.value_bytes() > kMaxWireValueBytes) bad = absl::DataLossError("cache service: a block is too large");
      }
      if (value->size() + frame.payload().size() > expected[frame.index()]) {
        bad = absl::DataLossError("cache service: a block goes on past its size");
      }
      if (bad.ok()) value->append(frame.payload());
    }
  }
  if (!bad.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  TP_RETURN_IF_ERROR(bad);
  TP_RETURN_IF_ERROR(FromGrpc(status));
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].has_value()) continue;
    if (values[i]->size() != expected[i]) return absl::DataLossError("cache service: a block was cut off");
    impl_->fetched_blocks_.fetch_add(1);
    impl_->fetched_bytes_.fetch_add(static_cast<int64_t>(values[i]->size()));
  }
  return values;
}

BlockCacheStats RemoteCache::Stats() const {
  BlockCacheStats stats;
  stats.offloaded_blocks = impl_->offload_.counters().blocks;
  stats.offloaded_bytes = impl_->offload_.counters().bytes;
  stats.offload_failures = impl_->offload_.counters().failures;
  stats.recalled_rows = impl_->recall_.counters().rows;
  stats.recalled_bytes = impl_->recall_.counters().bytes;
  stats.missing_rows = impl_->recall_.counters().missing;
  stats.fetched_blocks = impl_->fetched_blocks_;
  stats.fetched_bytes = impl_->fetched_bytes_;
  stats.reconnects = impl_->offload_.counters().reconnects + impl_->recall_.counters().reconnects;
  return stats;
}

absl::Status RemoteCache::Put(const SessionManifest& manifest, absl::Time deadline) {
  const std::string bytes = ManifestToWire(manifest);
  if (bytes.size() > kMaxManifestWireBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("session '", manifest.session_id, "': its manifest has ",
                                                     bytes.size(), " bytes, at most ", kMaxManifestWireBytes));
  }
  grpc::ClientContext context;
  Impl::Prepare(context, deadline);
  v1::PutManifestResponse response;
  auto writer = impl_->stub_->PutManifest(&context, &response);
  for (size_t offset = 0; offset < bytes.size();) {
    v1::ManifestFrame frame;
    if (offset == 0) frame.set_manifest_bytes(bytes.size());
    frame.set_payload(bytes.substr(offset, kWireFrameBytes));
    frame.set_checksum(Checksum32(frame.payload()));
    offset += frame.payload().size();
    if (!writer->Write(frame)) break;  // Finish says why
  }
  writer->WritesDone();
  return FromGrpc(writer->Finish());
}

absl::StatusOr<std::optional<SessionManifest>> RemoteCache::Get(std::string_view tenant, std::string_view session_id,
                                                                absl::Time deadline) {
  grpc::ClientContext context;
  Impl::Prepare(context, deadline);
  v1::GetManifestRequest request;
  request.set_tenant(std::string(tenant));
  request.set_session_id(std::string(session_id));
  auto reader = impl_->stub_->GetManifest(&context, request);
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
  if (!bad.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  TP_RETURN_IF_ERROR(bad);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
  TP_RETURN_IF_ERROR(FromGrpc(status));
  if (bytes.size() != expected) return absl::DataLossError("cache service: a manifest was cut off");
  TP_ASSIGN_OR_RETURN(SessionManifest manifest, ManifestFromWire(bytes));
  return manifest;
}

absl::Status RemoteCache::Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) {
  grpc::ClientContext context;
  Impl::Prepare(context, deadline);
  v1::DeleteSessionRequest request;
  request.set_tenant(std::string(tenant));
  request.set_session_id(std::string(session_id));
  v1::DeleteSessionResponse response;
  return FromGrpc(impl_->stub_->DeleteSession(&context, request, &response));
}

}  // namespace tidepool
