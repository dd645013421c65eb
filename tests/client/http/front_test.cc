// The front over real sockets, behind it real workers of a tiny model whose answers can be held.
#include "client/http/front.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/http/http_server.h"
#include "tests/client/http/tiny_worker.h"
#include "tests/support/eventually.h"
#include "tests/support/raw_client.h"
#include "tests/support/temp_dir.h"

namespace tidepool::http {
namespace {

using nlohmann::json;
using test::RawClient;
using test::RawResponse;
using test::TinyWorker;
using testing::HasSubstr;

class FrontTest : public testing::Test {
 protected:
  void Start(const std::vector<WorkerAddress>& workers, FrontOptions options = {}) {
    pool_ = std::make_unique<WorkerPool>(workers, "tiny");
    pool_->WaitForFirstAnswers();
    if (keys_ == nullptr) keys_ = std::make_unique<ApiKeys>();
    front_ = std::make_unique<Front>(options, keys_.get(), pool_.get());
    server_ = *HttpServer::Start({.listen = "127.0.0.1:0"}, front_.get());
  }
  void UseKeys(const std::string& text) {
    std::ofstream(dir_.File("keys")) << text;
    keys_ = *ApiKeys::Open(dir_.File("keys"));
  }
  RawResponse Get(const std::string& path) {
    RawClient client(server_->port());
    client.Get(path);
    return client.ReadResponse();
  }
  RawResponse Post(const std::string& path, const json& body, const std::string& headers = "") {
    RawClient client(server_->port());
    client.Post(path, body.dump(), headers);
    return client.ReadResponse();
  }
  static json Completion(int max_tokens, json more = json::object()) {
    json body = {{"prompt", {1, 2, 3, 4}}, {"max_tokens", max_tokens}, {"temperature", 0}};
    more["tidepool"]["ignore_eos"] = true;
    body.update(more);
    return body;
  }

  test::TempDir dir_;
  std::unique_ptr<ApiKeys> keys_;
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<Front> front_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(FrontTest, PathsMethodsAndTypesThatAreNotServedAreRefused) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  EXPECT_EQ(Get("/").status, 404);
  EXPECT_EQ(Get("/v1/model").status, 404);
  EXPECT_EQ(json::parse(Get("/v1/embeddings").body)["error"]["code"], "unknown_url");
  const RawResponse wrong_method = Get("/v1/completions");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_EQ(wrong_method.Header("Allow"), "POST");
  EXPECT_EQ(Post("/health", json::object()).status, 405);
  RawClient form(server_->port());
  form.Send("POST /v1/completions HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(form.ReadResponse().status, 415);
}

TEST_F(FrontTest, ModelsAreListedAndFoundById) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  const json list = json::parse(Get("/v1/models").body);
  ASSERT_EQ(list["data"].size(), 1u);
  EXPECT_EQ(list["data"][0]["id"], "tiny");
  EXPECT_EQ(json::parse(Get("/v1/models/tiny").body), list["data"][0]);
  const RawResponse unknown = Get("/v1/models/tin");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(json::parse(unknown.body)["error"]["code"], "model_not_found");
}

TEST_F(FrontTest, AnAnswerSaysWhatTheWorkerSays) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  GenerationClient client(worker.address());
  v1::GenerateRequest request;
  for (const int id : {1, 2, 3, 4}) request.mutable_token_ids()->add_ids(id);
  request.mutable_stop()->set_max_tokens(12);
  request.mutable_stop()->set_ignore_eos(true);
  request.set_logprobs(0);
  std::string text;
  std::vector<float> logprobs;
  const auto end = client.Generate(request, [&](const v1::GenerateResponse& response) {
    text += response.tokens().text();
    for (const auto& token : response.tokens().logprobs()) logprobs.push_back(token.logprob());
  });
  ASSERT_TRUE(end.ok()) << end.status();

  const RawResponse response = Post("/v1/completions", Completion(12, {{"model", "tiny"}, {"logprobs", 0}}));
  ASSERT_EQ(response.status, 200) << response.body;
  const json answer = json::parse(response.body);
  EXPECT_EQ(answer["model"], "tiny");
  EXPECT_EQ(answer["choices"][0]["text"], text);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 4);
  std::vector<float> shown = answer["choices"][0]["logprobs"]["token_logprobs"];
  EXPECT_EQ(shown, logprobs);
  EXPECT_EQ(answer["choices"][0]["tidepool"]["usage"]["generated_tokens"], 12);
}

TEST_F(FrontTest, ErrorsOfTheWorkerHaveTheRequestsNames) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  const std::pair<json, const char*> cases[] = {
      {Completion(1, {{"temperature", 11}}), "temperature"},
      {Completion(1, {{"stop", ""}}), "stop"},
      {Completion(1, {{"prompt", {5000}}}), "prompt"},
      {Completion(1, {{"tidepool", {{"compression", {{"preset", "nonsense"}}}}}}), "tidepool.compression.preset"},
      {Completion(1, {{"tidepool", {{"session_id", "s"}}}}), "tidepool.session_id"},
      {Completion(1, {{"max_tokens", "many"}}), "max_tokens"},
  };
  for (const auto& [body, param] : cases) {
    const RawResponse response = Post("/v1/completions", body);
    EXPECT_EQ(response.status, 400) << body;
    EXPECT_EQ(json::parse(response.body)["error"]["param"], param) << response.body;
  }
  const RawResponse streamed = Post("/v1/completions", Completion(1, {{"temperature", 11}, {"stream", true}}));
  EXPECT_EQ(streamed.status, 400) << "before a stream begins an error is a response";
  const RawResponse unknown = Post("/v1/completions", Completion(1, {{"model", "x"}}));
  EXPECT_EQ(unknown.status, 404);
}

TEST_F(FrontTest, WithoutAKeyThatIsKnownNobodyIsServed) {
  TinyWorker ours, acmes;
  UseKeys("default key-of-default\nacme key-of-acme\nnobody key-of-nobody\n");
  Start({{"default", ours.address()}, {"acme", acmes.address()}});
  for (const char* header : {"", "Authorization: Bearer wrong-key\r\n", "Authorization: Basic key-of-acme\r\n"}) {
    const RawResponse refused = Post("/v1/completions", Completion(1), header);
    EXPECT_EQ(refused.status, 401);
    EXPECT_EQ(json::parse(refused.body)["error"]["code"], "invalid_api_key");
    EXPECT_EQ(refused.Header("WWW-Authenticate"), "Bearer");
  }
  EXPECT_EQ(Get("/v1/models").status, 401);
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(Get("/metrics").status, 200);
  EXPECT_EQ(Post("/v1/completions", Completion(1), "Authorization: Bearer key-of-acme\r\n").status, 200);
  EXPECT_EQ(acmes.Stats().requests_finished(), 1);
  EXPECT_EQ(ours.Stats().requests_finished(), 0);
  EXPECT_EQ(Post("/v1/completions", Completion(1), "Authorization: Bearer key-of-nobody\r\n").status, 404);
}

TEST_F(FrontTest, AClientThatGoesCancelsItsAnswer) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  worker.held().Hold(3);
  {
    RawClient client(server_->port());
    client.Post("/v1/completions", Completion(200, {{"stream", true}}).dump());
    EXPECT_EQ(client.ReadHead().status, 200);
    client.ReadChunk();
  }
  worker.held().WaitForFinished(1);
  EXPECT_EQ(worker.Stats().requests_cancelled(), 1);
  worker.held().Hold(3);
  {
    RawClient client(server_->port());
    client.Post("/v1/completions", Completion(200, {{"n", 2}}).dump());
    worker.held().WaitForSubmitted(3);
  }
  worker.held().WaitForFinished(3);
  // The first of the two to be cancelled lets the other go on, which may come to its end before its own turn.
  EXPECT_GE(worker.Stats().requests_cancelled(), 2);
  EXPECT_EQ(worker.Stats().used_pages, 0);
}

TEST_F(FrontTest, AWorkerThatGoesBeforeItBeginsIsReplacedByAnother) {
  auto first = std::make_unique<TinyWorker>();
  TinyWorker second;
  Start({{"default", first->address()}, {"default", second.address()}});
  first.reset();
  // Whether the front has noticed or not, no request fails.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Post("/v1/completions", Completion(1)).status, 200);
  EXPECT_EQ(second.Stats().requests_finished(), 4);
}

TEST_F(FrontTest, WithoutAWorkerTheAnswerIs503AndSoIsTheHealth) {
  auto worker = std::make_unique<TinyWorker>();
  Start({{"default", worker->address()}});
  EXPECT_EQ(Get("/health").status, 200);
  worker.reset();
  const RawResponse response = Post("/v1/completions", Completion(1));
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.Header("Retry-After"), "1");
  while (pool_->answering() > 0) std::this_thread::yield();
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Post("/v1/completions", Completion(1, {{"model", "tiny"}})).status, 503);
}

TEST_F(FrontTest, AnAnswerThatTakesTooLongIsA504) {
  TinyWorker worker;
  Start({{"default", worker.address()}}, {.request_timeout = absl::Milliseconds(300)});
  worker.held().Hold(3);
  EXPECT_EQ(Post("/v1/completions", Completion(200)).status, 504);
}

TEST_F(FrontTest, AStreamWhoseWorkerGoesEndsWithTheError) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  worker.held().Hold(3);
  RawClient client(server_->port());
  client.Post("/v1/completions", Completion(200, {{"stream", true}}).dump());
  EXPECT_EQ(client.ReadHead().status, 200);
  std::string events = client.ReadChunk();
  worker.Stop();
  for (std::string chunk = client.ReadChunk(); !chunk.empty(); chunk = client.ReadChunk()) events += chunk;
  EXPECT_THAT(events, HasSubstr(R"(data: {"error":{"message":)"));
  EXPECT_THAT(events, testing::Not(HasSubstr("[DONE]")));
  client.Get("/health");
  EXPECT_GT(client.ReadResponse().status, 0) << "the stream ended in order";
}

TEST_F(FrontTest, AFullQueueIsA429) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  worker.held().Hold(1);
  std::vector<std::unique_ptr<RawClient>> clients;
  RawResponse refused;
  // The engine thread waits in the first answer, so the queue fills.
  for (int i = 0; i < 400 && refused.status == 0; ++i) {
    clients.push_back(std::make_unique<RawClient>(server_->port()));
    clients.back()->Post("/v1/completions", Completion(200).dump());
    worker.held().WaitForSubmitted(i + 1);
    if (i >= 330) refused = clients.back()->ReadResponse();
  }
  EXPECT_EQ(refused.status, 429) << refused.body;
  EXPECT_EQ(refused.Header("Retry-After"), "1");
  EXPECT_EQ(json::parse(refused.body)["error"]["code"], "rate_limit_exceeded");
  clients.clear();
  worker.held().Release();
  while (worker.Stats().running_sequences + worker.Stats().waiting_requests > 0) std::this_thread::yield();
}

TEST_F(FrontTest, AServerThatEndsFinishesItsAnswers) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  worker.held().Hold(3);
  RawClient client(server_->port());
  client.Post("/v1/completions", Completion(20, {{"stream", true}}).dump());
  EXPECT_EQ(client.ReadHead().status, 200);
  client.ReadChunk();
  std::thread shutdown([&] { server_->Shutdown(absl::Hours(1)); });
  worker.held().Release();
  EXPECT_THAT(client.ReadToEnd(), HasSubstr("data: [DONE]"));
  client.Close();
  shutdown.join();
  EXPECT_EQ(worker.Stats().requests_finished(), 1);
}

TEST_F(FrontTest, MetricsCountWhatWasAnswered) {
  TinyWorker worker;
  Start({{"default", worker.address()}});
  Post("/v1/completions", Completion(5));
  Post("/v1/completions", Completion(5, {{"nonsense", 1}}));
  Get("/somewhere");
  // An answer is counted once its response has gone out.
  RawResponse metrics;
  test::Eventually([&] {
    metrics = Get("/metrics");
    return absl::StrContains(metrics.body, "tidepool_http_running_answers 0\n");
  });
  EXPECT_THAT(metrics.Header("Content-Type"), HasSubstr("text/plain; version=0.0.4"));
  for (const char* line : {"tidepool_http_requests_total{path=\"/v1/completions\",code=\"200\"} 1\n",
                           "tidepool_http_requests_total{path=\"/v1/completions\",code=\"400\"} 1\n",
                           "tidepool_http_requests_total{path=\"other\",code=\"404\"} 1\n",
                           "tidepool_http_running_answers 0\n", "tidepool_http_prompt_tokens_total 4\n",
                           "tidepool_http_generated_tokens_total 5\n", "tidepool_http_workers_answering 1\n"}) {
    EXPECT_THAT(metrics.body, HasSubstr(line));
  }
}

}  // namespace
}  // namespace tidepool::http
