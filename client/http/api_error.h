// Errors as OpenAI's API gives them: an HTTP status and {"error": {"message", "type", "param", "code"}}.
#ifndef TIDEPOOL_CLIENT_HTTP_API_ERROR_H_
#define TIDEPOOL_CLIENT_HTTP_API_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "client/http/http_service.h"

namespace tidepool::http {

struct ApiError {
  int status = 500;
  std::string message;
  std::string param;  // the request's field at fault; empty: none
  std::string code;   // empty: none

  std::string Json() const;  // one line
  HttpResponse Response() const;
};

// What a status of ours or of a worker's means to an HTTP client. A message that begins with a field's name gives the
// param: the worker's names become those of the request (chat: of /v1/chat/completions).
ApiError ApiErrorFrom(const absl::Status& status, bool chat);

// A refusal by HTTP status alone; `code` may be empty.
ApiError RefusalOf(int http_status, std::string message, std::string code = "");

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_API_ERROR_H_
