#include "tracing/span.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tidepool {
namespace {

using nlohmann::json;

TEST(SpanTest, JsonIsThatOfOtlp) {
  Span span;
  span.name = "decode";
  span.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
  span.span_id = "00f067aa0ba902b7";
  span.parent_id = "1122334455667788";
  span.start = absl::FromUnixNanos(1'700'000'000'123'456'789);
  span.end = span.start + absl::Nanoseconds(11);
  span.attributes = {{"text", std::string("a\"\xff")}, {"count", int64_t{1} << 60}, {"share", 0.5}, {"flag", true}};
  Span failed = span;
  failed.parent_id.clear();
  failed.server = true;
  failed.error = "lost";
  const json request = json::parse(OtlpJson({span, failed}, {{"service.name", "test"}}));
  const json& resource = request["resourceSpans"][0];
  EXPECT_EQ(resource["resource"]["attributes"],
            json::parse(R"([{"key": "service.name", "value": {"stringValue": "test"}}])"));
  const json& spans = resource["scopeSpans"][0]["spans"];
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0], json::parse(R"({
      "traceId": "4bf92f3577b34da6a3ce929d0e0e4736", "spanId": "00f067aa0ba902b7", "parentSpanId": "1122334455667788",
      "name": "decode", "kind": 1, "startTimeUnixNano": "1700000000123456789", "endTimeUnixNano": "1700000000123456800",
      "attributes": [{"key": "text", "value": {"stringValue": "a\"\ufffd"}},
                     {"key": "count", "value": {"intValue": "1152921504606846976"}},
                     {"key": "share", "value": {"doubleValue": 0.5}}, {"key": "flag", "value": {"boolValue": true}}]})"));
  EXPECT_FALSE(spans[1].contains("parentSpanId"));
  EXPECT_EQ(spans[1]["kind"], 2);
  EXPECT_EQ(spans[1]["status"], json::parse(R"({"code": 2, "message": "lost"})"));
}

}  // namespace
}  // namespace tidepool
