#include "worker/rpc/request_tracer.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace tidepool {
namespace {

absl::Time At(int ms) { return absl::FromUnixMillis(1'700'000'000'000 + ms); }

TracedCall Call() {
  TracedCall call;
  call.name = "Generate";
  call.trace_id = NewTraceId();
  call.parent_id = "1122334455667788";
  call.start = At(0);
  call.attributes = {{"gen_ai.operation.name", std::string("text_completion")}};
  return call;
}

std::map<std::string, Span> ByName(const std::vector<Span>& spans) {
  std::map<std::string, Span> by_name;
  for (const Span& span : spans) EXPECT_TRUE(by_name.emplace(span.name, span).second) << span.name;
  return by_name;
}

TEST(RequestTracerTest, EachPhaseIsASpanBelowThatOfTheCall) {
  GenerationResult result;
  result.reason = FinishReason::kLength;
  result.usage.prompt_tokens = 100;
  result.usage.cached_prompt_tokens = 64;
  result.usage.recalled_rows = 5;
  result.timeline = {.arrived = At(1),
                     .ended = At(90),
                     .lookup_began = At(2),
                     .lookup_ended = At(10),
                     .started = At(12),
                     .first_token = At(40),
                     .last_token = At(80),
                     .first_recall = At(45),
                     .last_recall = At(70),
                     .store_began = At(80)};
  const TracedCall call = Call();
  const std::map<std::string, Span> spans = ByName(SpansOf(call, result));
  ASSERT_EQ(spans.size(), 7u);
  const Span& root = spans.at("Generate");
  EXPECT_EQ(root.parent_id, call.parent_id);
  EXPECT_TRUE(root.server);
  auto expect = [&](const char* name, int start, int end, const Span& parent) {
    const Span& span = spans.at(name);
    EXPECT_EQ(span.trace_id, call.trace_id);
    EXPECT_EQ(span.parent_id, parent.span_id) << name;
    EXPECT_EQ(span.start, At(start)) << name;
    EXPECT_EQ(span.end, At(end)) << name;
    EXPECT_FALSE(span.server);
  };
  EXPECT_EQ(root.start, At(0));
  EXPECT_EQ(root.end, At(90));
  expect("queue", 1, 12, root);
  expect("lookup", 2, 10, spans.at("queue"));
  expect("prefill", 12, 40, root);
  expect("decode", 40, 80, root);
  expect("recall", 45, 70, root);
  expect("offload", 80, 90, root);
}

TEST(RequestTracerTest, WhatDidNotComeToItsEndEndedWithTheRequest) {
  GenerationResult result;
  result.status = absl::UnavailableError("rows were lost");
  result.timeline = {.arrived = At(1), .ended = At(30), .started = At(12)};
  const std::map<std::string, Span> spans = ByName(SpansOf(Call(), result));
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans.at("prefill").end, At(30));
  EXPECT_EQ(spans.at("Generate").error, "rows were lost");
}

TEST(RequestTracerTest, ACallThatWasRefusedIsOneSpan) {
  GenerationResult result;
  result.status = absl::InvalidArgumentError("top_p");
  const std::vector<Span> spans = SpansOf(Call(), result);
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].error, "top_p");
  EXPECT_EQ(spans[0].end, spans[0].start);
}

}  // namespace
}  // namespace tidepool
