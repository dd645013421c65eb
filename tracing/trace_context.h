// Which trace a request belongs to: the header `traceparent` of W3C Trace Context, in HTTP and as gRPC metadata.
#ifndef TIDEPOOL_TRACING_TRACE_CONTEXT_H_
#define TIDEPOOL_TRACING_TRACE_CONTEXT_H_

#include <optional>
#include <string>
#include <string_view>

namespace tidepool {

struct TraceContext {
  std::string trace_id;  // 32 lower-case hexadecimal digits, not all 0
  std::string span_id;   // 16 of them: the caller's span
  bool sampled = false;  // the caller records it
};

// Nothing for what is not valid: such a header is ignored, as the standard has it.
std::optional<TraceContext> ParseTraceParent(std::string_view header);

// New ids.
std::string NewTraceId();
std::string NewSpanId();

}  // namespace tidepool

#endif  // TIDEPOOL_TRACING_TRACE_CONTEXT_H_
