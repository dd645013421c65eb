#include "worker/rpc/request_tracer.h"

#include <grpcpp/grpcpp.h>

#include <random>

#include "absl/time/clock.h"

namespace tidepool {
namespace {

constexpr char kTraceParent[] = "traceparent";

double RandomShare() {
  thread_local std::mt19937 random{std::random_device()()};
  return std::uniform_real_distribution<double>(0, 1)(random);
}

bool Came(absl::Time time) { return time != absl::InfinitePast(); }

// Collects the children of one span.
class Children {
 public:
  explicit Children(std::vector<Span>* spans) : spans_(spans) {}

  // Nothing when it did not begin. What did not come to its end ended with the request. Returns its id.
  std::string Add(const char* name, const std::string& parent, absl::Time start, absl::Time end, absl::Time ended,
                  std::vector<std::pair<std::string, Span::Value>> attributes = {}) {
    if (!Came(start)) return "";
    Span span;
    span.name = name;
    span.trace_id = spans_->front().trace_id;
    span.span_id = NewSpanId();
    span.parent_id = parent;
    span.start = start;
    span.end = Came(end) ? end : ended;
    span.attributes = std::move(attributes);
    spans_->push_back(std::move(span));
    return spans_->back().span_id;
  }

 private:
  std::vector<Span>* const spans_;
};

}  // namespace

std::vector<Span> SpansOf(const TracedCall& call, const GenerationResult& result) {
  const RequestTimeline& times = result.timeline;
  const GenerationUsage& usage = result.usage;
  Span root;
  root.name = call.name;
  root.trace_id = call.trace_id;
  root.span_id = NewSpanId();
  root.parent_id = call.parent_id;
  root.server = true;
  root.start = call.start;
  root.end = Came(times.ended) ? times.ended : call.start;  // a call that was refused takes no time
  root.attributes = call.attributes;
  if (!result.status.ok()) {
    root.error = std::string(result.status.message());
    root.attributes.emplace_back("error.type", absl::StatusCodeToString(result.status.code()));
  } else {
    root.attributes.emplace_back("gen_ai.response.finish_reasons", std::string(NameOf(result.reason)));
  }
  root.attributes.emplace_back("gen_ai.usage.input_tokens", usage.prompt_tokens);
  root.attributes.emplace_back("gen_ai.usage.cache_read.input_tokens", usage.cached_prompt_tokens);
  root.attributes.emplace_back("gen_ai.usage.output_tokens", usage.generated_tokens);
  if (!result.preset.empty()) root.attributes.emplace_back("tidepool.preset", result.preset);
  if (usage.evicted_rows > 0) root.attributes.emplace_back("tidepool.evicted_rows", usage.evicted_rows);
  if (usage.degraded) root.attributes.emplace_back("tidepool.degraded", true);

  std::vector<Span> spans = {root};
  Children children(&spans);
  const std::string queue = children.Add("queue", root.span_id, times.arrived, times.started, times.ended);
  children.Add("lookup", queue, times.lookup_began, times.lookup_ended, times.ended,
               {{"tidepool.cached_tokens", usage.cached_prompt_tokens}});
  const absl::Time decode = times.first_token;
  // Without a token to generate the prompt's end is that of the request, or where storing begins.
  const absl::Time prompt_end = Came(decode) ? decode : times.store_began;
  children.Add("prefill", root.span_id, times.started, prompt_end, times.ended,
               {{"tidepool.computed_tokens", usage.prompt_tokens - usage.cached_prompt_tokens}});
  children.Add("decode", root.span_id, decode, times.last_token, times.ended,
               {{"tidepool.tokens", usage.generated_tokens}});
  children.Add("recall", root.span_id, times.first_recall, times.last_recall, times.ended,
               {{"tidepool.recalled_rows", usage.recalled_rows},
                {"tidepool.late_rows", usage.late_rows},
                {"tidepool.lost_rows", usage.lost_rows},
                {"tidepool.recalled_bytes", usage.recalled_bytes}});
  children.Add("offload", root.span_id, times.store_began, times.ended, times.ended,
               {{"tidepool.offloaded_bytes", usage.offloaded_bytes}});
  return spans;
}

template <typename Request>
std::function<void(const GenerationResult&)> RequestTracer::Record(const grpc::ServerContextBase& call,
                                                                   const Request& request, const char* name,
                                                                   const char* operation) const {
  std::optional<TraceContext> context;
  if (const auto header = call.client_metadata().find(kTraceParent); header != call.client_metadata().end()) {
    context = ParseTraceParent({header->second.data(), header->second.size()});
  }
  if (!(context.has_value() ? context->sampled : RandomShare() < share_)) return nullptr;
  TracedCall traced;
  traced.name = name;
  traced.trace_id = context.has_value() ? context->trace_id : NewTraceId();
  if (context.has_value()) traced.parent_id = context->span_id;
  traced.start = absl::Now();
  auto add = [&](const char* key, Span::Value value) { traced.attributes.emplace_back(key, std::move(value)); };
  add("gen_ai.operation.name", std::string(operation));
  add("gen_ai.provider.name", std::string("tidepool"));
  add("gen_ai.request.model", model_);
  if (request.sampling().has_temperature()) add("gen_ai.request.temperature", double{request.sampling().temperature()});
  if (request.stop().has_max_tokens()) add("gen_ai.request.max_tokens", int64_t{request.stop().max_tokens()});
  if (!request.request_id().empty()) add("tidepool.request_id", request.request_id());
  return [exporter = exporter_,
          traced = std::make_shared<const TracedCall>(std::move(traced))](const GenerationResult& result) {
    exporter->Export([traced, result] { return SpansOf(*traced, result); });
  };
}

std::function<void(const GenerationResult&)> RequestTracer::Begin(const grpc::ServerContextBase& call,
                                                                  const v1::GenerateRequest& request) const {
  return Record(call, request, "Generate", "text_completion");
}

std::function<void(const GenerationResult&)> RequestTracer::Begin(const grpc::ServerContextBase& call,
                                                                  const v1::ChatRequest& request) const {
  return Record(call, request, "Chat", "chat");
}

}  // namespace tidepool
