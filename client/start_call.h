// How GenerationClient starts its asynchronous calls. Includes gRPC's stubs: for .cc files only.
#ifndef TIDEPOOL_CLIENT_START_CALL_H_
#define TIDEPOOL_CLIENT_START_CALL_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_call.h"
#include "security/rpc/channel_security.h"
#include "tidepool/v1/generation.grpc.pb.h"

namespace tidepool::client {

// security: of the stub's channel; null: plain text. traceparent: metadata of that name; empty: none.
std::shared_ptr<GenerationCall> StartCall(v1::Generation::Stub* stub, const std::string& address,
                                          std::shared_ptr<const ChannelSecurity> security, v1::GenerateRequest request,
                                          std::shared_ptr<GenerationCall::Reader> reader, absl::Time deadline,
                                          const std::string& traceparent);
std::shared_ptr<GenerationCall> StartCall(v1::Generation::Stub* stub, const std::string& address,
                                          std::shared_ptr<const ChannelSecurity> security, v1::ChatRequest request,
                                          std::shared_ptr<GenerationCall::Reader> reader, absl::Time deadline,
                                          const std::string& traceparent);

// `done` once, by a thread of gRPC's.
void StartEstimate(v1::Generation::Stub* stub, const std::string& address,
                   std::shared_ptr<const ChannelSecurity> security, v1::EstimateRequest request,
                   std::function<void(absl::StatusOr<v1::EstimateResponse>)> done, absl::Time deadline);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_START_CALL_H_
