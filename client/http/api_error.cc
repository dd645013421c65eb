#include "client/http/api_error.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tidepool::http {
namespace {

using Json = nlohmann::ordered_json;

const char* TypeOf(int status) {
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented: return 400;  // of this model or worker: asking again does not help
    case absl::StatusCode::kNotFound: return 404;
    case absl::StatusCode::kAborted: return 409;
    case absl::StatusCode::kResourceExhausted: return 429;
    case absl::StatusCode::kCancelled:  // by the worker, as it ends
    case absl::StatusCode::kUnavailable: return 503;
    case absl::StatusCode::kDeadlineExceeded: return 504;
    default: return 500;
  }
}

// The name that a message of ours begins with: "max_tokens: ...", "temperature is ...", "logit_bias[0].token is ...".
std::string FieldOf(std::string_view message) {
  for (const std::string_view begin : {"stop strings", "stop token_ids"}) {
    if (absl::StartsWith(absl::string_view(message.data(), message.size()),
                         absl::string_view(begin.data(), begin.size())))
      return std::string(begin);
  }
  size_t end = 0;
  while (end < message.size() && (absl::ascii_isalnum(static_cast<unsigned char>(message[end])) ||
                                  std::string_view("_.[]").find(message[end]) != std::string_view::npos)) {
    ++end;
  }
  const std::string_view rest = message.substr(end);
  if (end == 0 || !(rest.starts_with(": ") || rest.starts_with(" is ") || rest.starts_with(" holds "))) return "";
  return std::string(message.substr(0, end));
}

// The request's name of a field that the worker names; what it does not name differently is the request's already.
std::string ParamOf(const std::string& field, bool chat) {
  const std::string first = field.substr(0, field.find_first_of(".["));
  if (first == "text" || first == "token_ids" || first == "prompt") return chat ? "messages" : "prompt";
  if (first == "stop strings") return "stop";
  if (first == "logprobs" && chat) return "top_logprobs";
  if (first == "stop token_ids") return "tidepool.stop_token_ids";
  for (const char* ours : {"session_id", "compression", "reuse_prefix", "top_k", "min_p", "repetition_penalty",
                           "min_tokens", "ignore_eos", "parse_special"}) {
    if (first == ours) return absl::StrCat("tidepool.", field);
  }
  return field;
}

}  // namespace

std::string ApiError::Json() const {
  const auto text = [](const std::string& value) { return value.empty() ? http::Json(nullptr) : http::Json(value); };
  const http::Json json = {
      {"error", {{"message", message}, {"type", TypeOf(status)}, {"param", text(param)}, {"code", text(code)}}}};
  return json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, http::Json::error_handler_t::replace);
}

HttpResponse ApiError::Response() const {
  HttpResponse response{.status = status, .body = Json() + "\n"};
  if (status == 429 || status == 503) response.headers.emplace_back("Retry-After", "1");
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

ApiError ApiErrorFrom(const absl::Status& status, bool chat) {
  ApiError error;
  error.status = HttpStatusOf(status.code());
  error.message = std::string(status.message());
  if (error.status == 400 || error.status == 404) error.param = ParamOf(FieldOf(error.message), chat);
  if (error.status == 404 && error.param == "model") error.code = "model_not_found";
  if (absl::StrContains(error.message, "the model's context holds")) error.code = "context_length_exceeded";
  if (error.status == 429) error.code = "rate_limit_exceeded";
  return error;
}

ApiError RefusalOf(int http_status, std::string message, std::string code) {
  return {.status = http_status, .message = std::move(message), .code = std::move(code)};
}

}  // namespace tidepool::http
