#include "client/check_health.h"

#include <google/protobuf/wrappers.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <future>

#include "client/call.h"

namespace tidepool {
namespace {

// The packages of gRPC bring no stubs of the protocol. Its two messages have one field each, with number 1: the name of
// a service (empty: the server), and a ServingStatus; wrappers are the same bytes.
using Request = google::protobuf::StringValue;
using Response = google::protobuf::UInt32Value;
constexpr uint32_t kServing = 1;

}  // namespace

absl::Status CheckHealth(const std::string& address, std::shared_ptr<const ChannelSecurity> security,
                         absl::Time deadline) {
  grpc::TemplatedGenericStub<Request, Response> stub(client::MakeChannel(address, security.get()));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const Request request;
  Response response;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &response,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  if (!status.ok()) return client::FromGrpc(status, address, security.get());
  if (response.value() == kServing) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(address, " answers, and says that it does not serve"));
}

}  // namespace tidepool
