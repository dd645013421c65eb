// A span of a trace, and spans as OTLP's JSON.
#ifndef TIDEPOOL_TRACING_SPAN_H_
#define TIDEPOOL_TRACING_SPAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace tidepool {

struct Span {
  using Value = std::variant<std::string, int64_t, double, bool>;

  std::string name;
  std::string trace_id, span_id;  // hexadecimal digits, as in TraceContext
  std::string parent_id;          // empty: none
  bool server = false;            // answers a call; else an internal step
  absl::Time start, end;
  std::vector<std::pair<std::string, Value>> attributes;
  std::string error;  // empty: none
};

// An ExportTraceServiceRequest of opentelemetry-proto in its JSON encoding. resource: attributes of who sends it.
std::string OtlpJson(const std::vector<Span>& spans, const std::vector<std::pair<std::string, std::string>>& resource);

}  // namespace tidepool

#endif  // TIDEPOOL_TRACING_SPAN_H_
