#include "tracing/span.h"

#include <nlohmann/json.hpp>

namespace tidepool {
namespace {

using Json = nlohmann::json;

constexpr int kInternal = 1, kServer = 2;  // SpanKind
constexpr int kError = 2;                  // StatusCode

Json Attribute(const std::string& key, const Span::Value& value) {
  Json json;
  if (const auto* text = std::get_if<std::string>(&value)) json = {{"stringValue", *text}};
  // 64-bit integers are strings in protobuf's JSON.
  if (const auto* number = std::get_if<int64_t>(&value)) json = {{"intValue", std::to_string(*number)}};
  if (const auto* number = std::get_if<double>(&value)) json = {{"doubleValue", *number}};
  if (const auto* flag = std::get_if<bool>(&value)) json = {{"boolValue", *flag}};
  return {{"key", key}, {"value", json}};
}

Json SpanJson(const Span& span) {
  Json json = {{"traceId", span.trace_id},
               {"spanId", span.span_id},
               {"name", span.name},
               {"kind", span.server ? kServer : kInternal},
               {"startTimeUnixNano", std::to_string(absl::ToUnixNanos(span.start))},
               {"endTimeUnixNano", std::to_string(absl::ToUnixNanos(span.end))},
               {"attributes", Json::array()}};
  if (!span.parent_id.empty()) json["parentSpanId"] = span.parent_id;
  for (const auto& [key, value] : span.attributes) json["attributes"].push_back(Attribute(key, value));
  if (!span.error.empty()) json["status"] = {{"code", kError}, {"message", span.error}};
  return json;
}

}  // namespace

std::string OtlpJson(const std::vector<Span>& spans, const std::vector<std::pair<std::string, std::string>>& resource) {
  Json attributes = Json::array(), list = Json::array();
  for (const auto& [key, value] : resource) attributes.push_back(Attribute(key, value));
  for (const Span& span : spans) list.push_back(SpanJson(span));
  const Json scope = {{"scope", {{"name", "tidepool"}}}, {"spans", list}};
  const Json json = {
      {"resourceSpans", {{{"resource", {{"attributes", attributes}}}, {"scopeSpans", Json::array({scope})}}}}};
  return json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace tidepool
