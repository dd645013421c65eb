// The spans of a worker's requests: one for each call, and below it where its time went. A call with a `traceparent` in
// its metadata belongs to the caller's trace and is recorded when the caller records it, others by share.
#ifndef TIDEPOOL_WORKER_RPC_REQUEST_TRACER_H_
#define TIDEPOOL_WORKER_RPC_REQUEST_TRACER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "tidepool/v1/generation.pb.h"
#include "tracing/span.h"
#include "tracing/span_exporter.h"
#include "tracing/trace_context.h"
#include "worker/engine/engine.h"

namespace grpc {
class ServerContextBase;
}

namespace tidepool {

// What a call asks for, as attributes of its span.
struct TracedCall {
  std::string name;  // of the method
  std::string trace_id;
  std::string parent_id;  // empty: the trace begins here
  absl::Time start;
  std::vector<std::pair<std::string, Span::Value>> attributes;
};

// Spans queue (with lookup in it), prefill, decode, recall and offload, where the request came to them, below one of
// the call.
std::vector<Span> SpansOf(const TracedCall& call, const GenerationResult& result);

// Thread-safe.
class RequestTracer {
 public:
  // share: of the calls without a traceparent, 0 to 1. model: its name. The exporter outlives it.
  RequestTracer(SpanExporter* exporter, double share, std::string model)
      : exporter_(exporter), share_(share), model_(std::move(model)) {}

  // What to call with the request's result; null: it is not recorded.
  std::function<void(const GenerationResult&)> Begin(const grpc::ServerContextBase& call,
                                                     const v1::GenerateRequest& request) const;
  std::function<void(const GenerationResult&)> Begin(const grpc::ServerContextBase& call,
                                                     const v1::ChatRequest& request) const;

 private:
  template <typename Request>
  std::function<void(const GenerationResult&)> Record(const grpc::ServerContextBase& call, const Request& request,
                                                      const char* name, const char* operation) const;

  SpanExporter* const exporter_;
  const double share_;
  const std::string model_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_REQUEST_TRACER_H_
