#include "cacheservice/rpc/cache_store_service.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cacheservice/rpc/fetch_stream.h"
#include "cacheservice/rpc/manifest_streams.h"
#include "cacheservice/rpc/offload_stream.h"
#include "cacheservice/rpc/recall_stream.h"
#include "cacheservice/wire/messages.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {
namespace {

// What carries blocks takes raw bytes (raw_message.h, wire/payload_message.h).
using CacheStoreBase = v1::CacheStore::WithCallbackMethod_Lookup<
    v1::CacheStore::WithRawCallbackMethod_Offload<v1::CacheStore::WithRawCallbackMethod_Recall<
        v1::CacheStore::WithRawCallbackMethod_FetchBlocks<v1::CacheStore::WithCallbackMethod_PutManifest<
            v1::CacheStore::WithCallbackMethod_GetManifest<v1::CacheStore::WithCallbackMethod_DeleteSession<
                v1::CacheStore::WithCallbackMethod_Probe<v1::CacheStore::Service>>>>>>>>;
using RawReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

class CacheStoreService final : public CacheStoreBase {
 public:
  explicit CacheStoreService(CacheContext* context) : context_(context) {}

  grpc::ServerUnaryReactor* Lookup(grpc::CallbackServerContext* call, const v1::LookupRequest* request,
                                   v1::LookupResponse* response) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    const absl::Status queued = context_->Run([this, call, reactor, request, response] {
      reactor->Finish(call->IsCancelled() ? grpc::Status::CANCELLED
                                          : ToGrpc(DoLookup(*request, absl::FromChrono(call->deadline()), *response)));
    });
    if (!queued.ok()) reactor->Finish(ToGrpc(queued));
    return reactor;
  }

  RawReactor* Offload(grpc::CallbackServerContext* call) override {
    return new OffloadStream(context_, context_->security->CallerOf(*call), call->peer());
  }

  RawReactor* Recall(grpc::CallbackServerContext* call) override {
    return new RecallStream(context_, context_->security->CallerOf(*call), call->peer());
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* FetchBlocks(grpc::CallbackServerContext*,
                                                          const grpc::ByteBuffer* request) override {
    return new FetchStream(context_, *request);
  }

  grpc::ServerReadReactor<v1::ManifestFrame>* PutManifest(grpc::CallbackServerContext* call,
                                                          v1::PutManifestResponse*) override {
    return new PutManifestStream(context_, context_->security->CallerOf(*call), absl::FromChrono(call->deadline()));
  }

  grpc::ServerWriteReactor<v1::ManifestFrame>* GetManifest(grpc::CallbackServerContext* call,
                                                           const v1::GetManifestRequest* request) override {
    return new GetManifestStream(context_, context_->security->CallerOf(*call), absl::FromChrono(call->deadline()),
                                 request);
  }

  grpc::ServerUnaryReactor* DeleteSession(grpc::CallbackServerContext* call, const v1::DeleteSessionRequest* request,
                                          v1::DeleteSessionResponse*) override {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    absl::Status status = IsTenantOf(context_->security->CallerOf(*call), request->tenant());
    if (status.ok()) {
      status = context_->Run([this, reactor, request, deadline = absl::FromChrono(call->deadline())] {
        reactor->Finish(ToGrpc(context_->manifests->Delete(request->tenant(), request->session_id(), deadline)));
      });
    }
    if (!status.ok()) reactor->Finish(ToGrpc(status));
    return reactor;
  }

  // Not through the pool: it is to answer also when the disk is slow.
  grpc::ServerUnaryReactor* Probe(grpc::CallbackServerContext* call, const v1::ProbeRequest*,
                                  v1::ProbeResponse* response) override {
    response->set_pod_name(context_->pod_name);
    response->set_draining(context_->draining.load());
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  absl::Status DoLookup(const v1::LookupRequest& request, absl::Time deadline, v1::LookupResponse& response) {
    if (request.keys_size() > kMaxWireSelections) {
      return absl::InvalidArgumentError(absl::StrCat("keys: ", request.keys_size(), ", at most ", kMaxWireSelections));
    }
    if (request.layers() < 1 || request.layers() > 1024) {
      return absl::InvalidArgumentError(absl::StrCat("layers: ", request.layers(), " is not in 1 to 1024"));
    }
    std::vector<BlockKey> chain(request.keys_size());
    for (int i = 0; i < request.keys_size(); ++i) {
      if (request.keys(i).size() != chain[i].bytes.size()) {
        return absl::InvalidArgumentError(
            absl::StrCat("keys[", i, "]: ", request.keys(i).size(), " bytes, 16 are needed"));
      }
      std::memcpy(chain[i].bytes.data(), request.keys(i).data(), chain[i].bytes.size());
    }
    const ReadTerms terms(deadline, static_cast<double>(request.compute_bytes_per_second()));
    if (!request.each()) {
      const PrefixHit hit = context_->blocks->LookupPrefix(chain, request.layers(), terms);
      response.set_stored_prefix(hit.blocks);
      response.set_slow_blocks(hit.slow_blocks);
      return absl::OkStatus();
    }
    for (const BlockKey& key : chain) {
      const PrefixHit hit = context_->blocks->LookupPrefix({&key, 1}, request.layers(), terms);
      response.add_stored(hit.blocks == 1);
      response.add_slow(hit.slow_blocks == 1);
    }
    return absl::OkStatus();
  }

  CacheContext* const context_;
};

}  // namespace

absl::Status CacheContext::SameLayoutAs(const KvLayout& known, const KvLayout& given) {
  return SameLayout(known, given);
}

absl::Status IsTenantOf(const absl::StatusOr<Caller>& caller, const std::string& tenant) {
  return caller.ok() ? caller->TenantFor(tenant).status() : caller.status();
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

std::unique_ptr<grpc::Service> MakeCacheStoreService(CacheContext* context) {
  return std::make_unique<CacheStoreService>(context);
}

}  // namespace tidepool
