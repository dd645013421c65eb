// What is served where: /v1/completions, /v1/chat/completions, /v1/models, /health, /metrics.
#ifndef TIDEPOOL_CLIENT_HTTP_FRONT_H_
#define TIDEPOOL_CLIENT_HTTP_FRONT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "client/http/api_keys.h"
#include "client/http/http_service.h"
#include "client/http/openai_request.h"
#include "client/http/running_answer.h"
#include "client/http/worker_pool.h"

namespace tidepool::http {

struct FrontOptions {
  OpenAiDefaults defaults;  // seeds are drawn, not this one
  absl::Duration request_timeout = absl::Seconds(600);
};

// Counts since the start.
struct FrontStats {
  std::map<std::pair<std::string, int>, int64_t> requests;  // by path of ours ("other": of nobody's) and HTTP status
  int64_t running_answers = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
};

class Front : public HttpService {
 public:
  // Keys and pool outlive it.
  Front(FrontOptions options, const ApiKeys* keys, WorkerPool* pool);

  std::optional<HttpResponse> Refuse(const HttpHead& head) override;
  void Serve(const HttpHead& head, std::string body, std::shared_ptr<HttpExchange> exchange) override;
  HttpResponse Error(int status, const std::string& message) override;

  FrontStats Stats() const;

 private:
  HttpResponse Models(const std::string& tenant) const;
  HttpResponse Model(const std::string& tenant, const std::string& id) const;
  HttpResponse Health() const;
  HttpResponse Metrics() const;
  void Generate(const HttpHead& head, const std::string& tenant, const std::string& body,
                std::shared_ptr<HttpExchange> exchange);
  void Answer(const std::string& path, HttpResponse response, HttpExchange& exchange);
  void Count(const std::string& path, int status);

  const FrontOptions options_;
  const ApiKeys* const keys_;
  WorkerPool* const pool_;
  mutable Mutex mutex_;
  FrontStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_FRONT_H_
