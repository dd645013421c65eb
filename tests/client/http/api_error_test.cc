#include "client/http/api_error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace tidepool::http {
namespace {

using nlohmann::json;

ApiError Invalid(const char* message, bool chat = false) {
  return ApiErrorFrom(absl::InvalidArgumentError(message), chat);
}

TEST(ApiErrorTest, EveryStatusHasItsHttpCode) {
  const std::pair<absl::Status, int> cases[] = {
      {absl::InvalidArgumentError("x"), 400},  {absl::FailedPreconditionError("x"), 400},
      {absl::UnimplementedError("x"), 400},    {absl::NotFoundError("x"), 404},
      {absl::AbortedError("x"), 409},          {absl::ResourceExhaustedError("x"), 429},
      {absl::UnavailableError("x"), 503},      {absl::CancelledError("x"), 503},
      {absl::DeadlineExceededError("x"), 504}, {absl::InternalError("x"), 500},
      {absl::DataLossError("x"), 500},         {absl::UnauthenticatedError("x"), 500},  // the worker refused us
  };
  for (const auto& [status, code] : cases) EXPECT_EQ(ApiErrorFrom(status, false).status, code) << status;
}

TEST(ApiErrorTest, TheFieldThatAMessageBeginsWithIsTheParam) {
  EXPECT_EQ(Invalid("temperature is 99; allowed: 0 (greedy) to 10").param, "temperature");
  EXPECT_EQ(Invalid("logit_bias[0].token is 9; allowed: 0 to 8").param, "logit_bias[0].token");
  EXPECT_EQ(Invalid("messages[3].role: \"x\" is not user").param, "messages[3].role");
  EXPECT_EQ(Invalid("stop strings[0] is 0 bytes long; allowed: 1 to 1024").param, "stop");
  EXPECT_EQ(Invalid("stop token_ids[0] is 9").param, "tidepool.stop_token_ids");
  EXPECT_EQ(Invalid("the body is not a JSON object").param, "");
  EXPECT_EQ(Invalid("").param, "");
}

TEST(ApiErrorTest, FieldsOfTheWorkerHaveTheirNamesInTheRequest) {
  EXPECT_EQ(Invalid("prompt: 9000 tokens, the model's context holds 8192").param, "prompt");
  EXPECT_EQ(Invalid("prompt: 9000 tokens, the model's context holds 8192").code, "context_length_exceeded");
  EXPECT_EQ(Invalid("prompt: 9000 tokens, the model's context holds 8192", true).param, "messages");
  EXPECT_EQ(Invalid("logprobs: 21 is not in -1 to 20", true).param, "top_logprobs");
  EXPECT_EQ(Invalid("logprobs: 21 is not in -1 to 20").param, "logprobs");
  EXPECT_EQ(Invalid("compression.sink_tokens: 9 is too many").param, "tidepool.compression.sink_tokens");
  EXPECT_EQ(Invalid("session_id: holds byte 32").param, "tidepool.session_id");
  EXPECT_EQ(Invalid("min_p is 2; allowed: 0 to below 1").param, "tidepool.min_p");
}

TEST(ApiErrorTest, TheJsonIsOpenAis) {
  const json error = json::parse(Invalid("top_p is 2; allowed: above 0, to 1").Json());
  EXPECT_EQ(error, json::parse(R"({"error": {"message": "top_p is 2; allowed: above 0, to 1",
                                             "type": "invalid_request_error", "param": "top_p", "code": null}})"));
  const json unknown = json::parse(ApiErrorFrom(absl::NotFoundError("model: 'x' is not served here"), false).Json());
  EXPECT_EQ(unknown["error"]["code"], "model_not_found");
  EXPECT_EQ(unknown["error"]["param"], "model");
  EXPECT_EQ(json::parse(ApiErrorFrom(absl::InternalError("x"), false).Json())["error"]["type"], "server_error");
}

TEST(ApiErrorTest, ResponsesSayWhenToComeBackAndHowToAuthenticate) {
  using Headers = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(ApiErrorFrom(absl::ResourceExhaustedError("queue: 256"), false).Response().headers,
            (Headers{{"Retry-After", "1"}}));
  EXPECT_EQ(RefusalOf(401, "no key", "invalid_api_key").Response().headers, (Headers{{"WWW-Authenticate", "Bearer"}}));
  EXPECT_EQ(RefusalOf(400, "no").Response().headers, Headers());
}

TEST(ApiErrorTest, BytesThatAreNoUtf8MakeNoBadJson) {
  EXPECT_TRUE(json::accept(ApiErrorFrom(absl::InternalError("\xff\xfe"), false).Json()));
}

}  // namespace
}  // namespace tidepool::http
