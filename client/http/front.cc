#include "client/http/front.h"

#include <openssl/rand.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "client/http/api_error.h"
#include "tracing/trace_context.h"

namespace tidepool::http {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kCompletions[] = "/v1/completions";
constexpr char kChatCompletions[] = "/v1/chat/completions";
constexpr char kModels[] = "/v1/models";
constexpr char kHealth[] = "/health";
constexpr char kMetrics[] = "/metrics";

// The path as ours, so that what clients make up does not become a label; else "other".
std::string RouteOf(const std::string& path) {
  for (const char* route : {kCompletions, kChatCompletions, kModels, kHealth, kMetrics}) {
    if (path == route) return route;
  }
  return absl::StartsWith(path, absl::StrCat(kModels, "/")) ? kModels : "other";
}

bool IsPost(const std::string& route) { return route == kCompletions || route == kChatCompletions; }
// Probes and scrapes have no keys.
bool IsOpen(const std::string& route) { return route == kHealth || route == kMetrics; }

template <typename Number>
Number Random() {
  Number number = 0;
  TIDEPOOL_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&number), sizeof number) == 1);
  return number;
}

HttpResponse JsonResponse(const Json& json) {
  return {.body = json.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n"};
}

Json ModelJson(const ServedModel& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.since_unix_seconds},
          {"owned_by", "tidepool"},
          {"context_length", model.context_tokens}};
}

void AddMetric(const char* name, const char* type, const char* help, const std::string& samples, std::string& text) {
  absl::StrAppend(&text, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n", samples);
}

}  // namespace

Front::Front(FrontOptions options, const ApiKeys* keys, WorkerPool* pool)
    : options_(std::move(options)), keys_(keys), pool_(pool) {}

std::optional<HttpResponse> Front::Refuse(const HttpHead& head) {
  const std::string route = RouteOf(head.path);
  std::optional<HttpResponse> refusal;
  if (route == "other") {
    refusal = RefusalOf(404, absl::StrCat("nothing is served at this path: try ", kChatCompletions), "unknown_url")
                  .Response();
  } else if (IsPost(route) ? head.method != "POST" : head.method != "GET" && head.method != "HEAD") {
    refusal = RefusalOf(405, absl::StrCat(route, " takes ", IsPost(route) ? "POST" : "GET", " only")).Response();
    refusal->headers.emplace_back("Allow", IsPost(route) ? "POST" : "GET, HEAD");
  } else if (!IsOpen(route)) {
    if (const auto tenant = keys_->TenantOf(head.authorization); !tenant.ok()) {
      refusal = RefusalOf(401, std::string(tenant.status().message()), "invalid_api_key").Response();
    } else if (IsPost(route) && !absl::StartsWithIgnoreCase(head.content_type, "application/json")) {
      // So that no page in a browser can ask without the browser's asking us first.
      refusal = RefusalOf(415, "the Content-Type must be application/json").Response();
    }
  }
  if (refusal.has_value()) Count(route, refusal->status);
  return refusal;
}

void Front::Serve(const HttpHead& head, std::string body, std::shared_ptr<HttpExchange> exchange) {
  const std::string route = RouteOf(head.path);
  if (route == kHealth) return Answer(route, Health(), *exchange);
  if (route == kMetrics) return Answer(route, Metrics(), *exchange);
  const absl::StatusOr<std::string> tenant = keys_->TenantOf(head.authorization);
  if (!tenant.ok()) {  // the key was taken away since the head was read
    return Answer(route, RefusalOf(401, std::string(tenant.status().message()), "invalid_api_key").Response(),
                  *exchange);
  }
  if (IsPost(route)) return Generate(head, *tenant, body, std::move(exchange));
  const std::string id(absl::StripPrefix(head.path.substr(sizeof kModels - 1), "/"));
  Answer(route, id.empty() ? Models(*tenant) : Model(*tenant, id), *exchange);
}

HttpResponse Front::Error(int status, const std::string& message) {
  Count("other", status);
  return RefusalOf(status, message).Response();
}

void Front::Answer(const std::string& path, HttpResponse response, HttpExchange& exchange) {
  Count(path, response.status);
  exchange.Respond(std::move(response));
}

void Front::Count(const std::string& path, int status) {
  MutexLock lock(&mutex_);
  ++stats_.requests[{path, status}];
}

HttpResponse Front::Models(const std::string& tenant) const {
  Json list = {{"object", "list"}, {"data", Json::array()}};
  for (const auto& model : pool_->Models(tenant)) list["data"].push_back(ModelJson(*model));
  return JsonResponse(list);
}

HttpResponse Front::Model(const std::string& tenant, const std::string& id) const {
  for (const auto& model : pool_->Models(tenant)) {
    if (model->id == id) return JsonResponse(ModelJson(*model));
  }
  return ApiErrorFrom(absl::NotFoundError(absl::StrCat("model: '", id.substr(0, 128), "' is not served here")), false)
      .Response();
}

HttpResponse Front::Health() const {
  const int answering = pool_->answering();
  HttpResponse response = JsonResponse({{"status", answering > 0 ? "ok" : "no worker answers"},
                                        {"workers", pool_->size()},
                                        {"workers_answering", answering}});
  response.status = answering > 0 ? 200 : 503;
  return response;
}

HttpResponse Front::Metrics() const {
  const FrontStats stats = Stats();
  std::string text, requests;
  for (const auto& [by, count] : stats.requests) {
    absl::StrAppend(&requests, "tidepool_http_requests_total{path=\"", by.first, "\",code=\"", by.second, "\"} ", count,
                    "\n");
  }
  const auto one = [](const char* name, int64_t value) { return absl::StrCat(name, " ", value, "\n"); };
  AddMetric("tidepool_http_requests_total", "counter", "Requests answered.", requests, text);
  AddMetric("tidepool_http_running_answers", "gauge", "Answers being generated.",
            one("tidepool_http_running_answers", stats.running_answers), text);
  AddMetric("tidepool_http_workers_answering", "gauge", "Workers that answer.",
            one("tidepool_http_workers_answering", pool_->answering()), text);
  AddMetric("tidepool_http_prompt_tokens_total", "counter", "Prompt tokens of finished answers.",
            one("tidepool_http_prompt_tokens_total", stats.prompt_tokens), text);
  AddMetric("tidepool_http_cached_prompt_tokens_total", "counter", "Those of them that were not computed again.",
            one("tidepool_http_cached_prompt_tokens_total", stats.cached_tokens), text);
  AddMetric("tidepool_http_generated_tokens_total", "counter", "Tokens of finished answers.",
            one("tidepool_http_generated_tokens_total", stats.generated_tokens), text);
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = std::move(text)};
}

FrontStats Front::Stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

void Front::Generate(const HttpHead& head, const std::string& tenant, const std::string& body,
                     std::shared_ptr<HttpExchange> exchange) {
  const bool chat = RouteOf(head.path) == kChatCompletions;
  const char* route = chat ? kChatCompletions : kCompletions;
  OpenAiDefaults defaults = options_.defaults;
  defaults.seed = Random<uint32_t>();
  absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(chat, body, defaults);
  if (!request.ok()) return Answer(route, ApiErrorFrom(request.status(), chat).Response(), *exchange);
  const absl::Time start = absl::Now();
  const std::string id = absl::StrCat(chat ? "chatcmpl-" : "cmpl-", absl::Hex(Random<uint64_t>(), absl::kZeroPad16));
  {
    MutexLock lock(&mutex_);
    ++stats_.running_answers;
  }
  const auto on_end = [this, route, id, tenant, start](const AnswerEnd& end) {
    TP_LOG(Info, "http", id, " ", tenant, " ", route, " ", end.status, " by ", end.worker.empty() ? "none" : end.worker,
           ": ", end.prompt_tokens, " prompt tokens (", end.cached_tokens, " cached), ", end.generated_tokens,
           " generated, ", absl::FormatDuration(absl::Trunc(absl::Now() - start, absl::Milliseconds(1))));
    MutexLock lock(&mutex_);
    --stats_.running_answers;
    ++stats_.requests[{route, end.status}];
    stats_.prompt_tokens += end.prompt_tokens;
    stats_.cached_tokens += end.cached_tokens;
    stats_.generated_tokens += end.generated_tokens;
  };
  RunningAnswer::Start(*std::move(request), std::move(exchange), pool_,
                       {.id = id,
                        .tenant = tenant,
                        .created_unix_seconds = absl::ToUnixSeconds(start),
                        .deadline = start + options_.request_timeout,
                        .traceparent = ParseTraceParent(head.traceparent).has_value() ? head.traceparent : "",
                        .on_end = on_end});
}

}  // namespace tidepool::http
