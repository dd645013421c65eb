// Any bytes as the body of a request to the HTTP front: it is refused with a reason that fits into JSON, or every
// choice is a request that survives the wire.
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>

#include "base/check.h"
#include "client/http/api_error.h"
#include "client/http/openai_request.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool::http {
namespace {

template <typename Request>
void CheckWire(const Request& request) {
  const std::string bytes = request.SerializeAsString();
  Request again;
  TIDEPOOL_CHECK(again.ParseFromString(bytes) && again.ByteSizeLong() == bytes.size());
}

void CheckBody(bool chat, std::string_view body) {
  const absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(chat, body, {.seed = 1});
  if (!request.ok()) {
    TIDEPOOL_CHECK(request.status().code() == absl::StatusCode::kInvalidArgument);
    const ApiError error = ApiErrorFrom(request.status(), chat);
    TIDEPOOL_CHECK(error.status == 400 && !error.message.empty());
    TIDEPOOL_CHECK(nlohmann::json::parse(error.Json(), nullptr, /*allow_exceptions=*/false).is_object());
    return;
  }
  TIDEPOOL_CHECK(request->choices() >= 1 && request->choices() <= kMaxChoices);
  TIDEPOOL_CHECK(request->choices() == 1 || request->session_id().empty());
  for (int i = 0; i < request->choices(); ++i) {
    const auto choice = request->Choice(i, "id");
    TIDEPOOL_CHECK(std::holds_alternative<v1::ChatRequest>(choice) == chat);
    std::visit([](const auto& one) { CheckWire(one); }, choice);
  }
}

}  // namespace
}  // namespace tidepool::http

namespace tidepool::test {

std::vector<std::string> FuzzSeeds() {
  return {
      R"({"prompt": "a", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": -1, "stop": ["a", "b"],
          "logprobs": 3, "logit_bias": {"7": -100}, "n": 2, "stream": true, "stream_options": {"include_usage": true}})",
      R"({"prompt": [[1, 2], [3]], "presence_penalty": 0.25, "frequency_penalty": -2, "best_of": 1, "echo": false,
          "suffix": null, "user": "u", "stop": "\u00e4", "tidepool": {"session_id": "s", "top_k": 4, "min_p": 0.5,
          "compression": {"preset": "snapkv", "budget_fraction": 0.1, "dense_layers": [0],
          "recall": {"mode": "RECALL_MODE_SYNC", "rows": 16}, "score_options": {"x": 1e300}}}})",
      R"({"model": "m", "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content":
          [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "c", "refusal": null}],
          "max_completion_tokens": 6, "logprobs": true, "top_logprobs": 4, "tools": [],
          "response_format": {"type": "text"}, "tidepool": {"stop_token_ids": [1], "ignoreEos": true}})",
      R"({"prompt": [18446744073709551615, -1], "logit_bias": {"x": null}})",
      std::string(40, '[') + R"({"a":"\ud800"})",
  };
}

}  // namespace tidepool::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  tidepool::http::CheckBody(/*chat=*/false, body);
  tidepool::http::CheckBody(/*chat=*/true, body);
  return 0;
}
