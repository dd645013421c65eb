// tidepool-http in front of the small real model, all of them real processes, asked by curl.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/generation_client.h"
#include "tests/e2e/cluster.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using nlohmann::json;
using test::ChildProcess;
using test::ExitStatus;
using testing::HasSubstr;

test::Cluster& Shared() {
  static test::Cluster cluster(
      {.model = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"), .worker_flags = {"--device-kv-bytes=512MiB"}});
  return cluster;
}

struct Response {
  int status = 0;
  std::string body;
  json Json() const { return json::parse(body); }
};

// A front of the shared worker.
class Front {
 public:
  explicit Front(std::vector<std::string> flags = {}) {
    const std::string port_file = dir_.File("port");
    std::vector<std::string> argv = {test::BinaryPath("tidepool-http"), "--listen=127.0.0.1:0",
                                     "--workers=" + Shared().worker_address(), "--port-file=" + port_file,
                                     "--model-id=smol"};
    argv.insert(argv.end(), flags.begin(), flags.end());
    process_ = std::make_unique<ChildProcess>(argv);
    url_ = absl::StrCat("http://127.0.0.1:", process_->WaitForPortFile(port_file));
  }

  ChildProcess& process() { return *process_; }
  std::vector<std::string> Curl(const std::string& path, std::vector<std::string> more = {}) const {
    std::vector<std::string> argv = {"curl", "--silent", "--show-error", "--no-buffer", url_ + path};
    argv.insert(argv.end(), more.begin(), more.end());
    return argv;
  }
  static std::vector<std::string> Body(const json& body) {
    return {"--header", "Content-Type: application/json", "--data-binary", body.dump()};
  }
  Response Ask(const std::string& path, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--write-out", "\n%{http_code}"});
    const test::ProgramResult result = test::RunProgram(Curl(path, more));
    EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
    const size_t end = result.out.rfind('\n');
    Response response{.body = result.out.substr(0, end)};
    EXPECT_TRUE(absl::SimpleAtoi(result.out.substr(end + 1), &response.status));
    return response;
  }
  Response Post(const std::string& path, const json& body, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments = Body(body);
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Ask(path, arguments);
  }
  const std::string& url() const { return url_; }
  const test::TempDir& dir() const { return dir_; }

 private:
  test::TempDir dir_;
  std::unique_ptr<ChildProcess> process_;
  std::string url_;
};

// The events of a stream that ended as it should.
std::vector<json> Events(const std::string& stream) {
  std::vector<json> events;
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n")) << stream;
  for (const std::string& event : std::vector<std::string>(absl::StrSplit(stream, "\n\n", absl::SkipEmpty()))) {
    if (event != "data: [DONE]") events.push_back(json::parse(event.substr(6)));
  }
  return events;
}

json CompletionBody(const std::string& prompt, int max_tokens, json more = json::object()) {
  json body = {{"model", "smol"}, {"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}};
  body.update(more);
  return body;
}

json ChatBody(const std::string& content, int max_tokens, json more = json::object()) {
  json body = {{"model", "smol"},
               {"messages", {{{"role", "user"}, {"content", content}}}},
               {"max_completion_tokens", max_tokens},
               {"temperature", 0}};
  body.update(more);
  return body;
}

TEST(HttpTest, ACompletionAndItsLogprobsAreThoseOfGrpc) {
  Front front;
  v1::GenerateRequest request;
  request.set_text("The tide comes in");
  request.mutable_stop()->set_max_tokens(24);
  request.set_logprobs(3);
  const test::Reply reply = Shared().Generate(request);
  const Response response = front.Post("/v1/completions", CompletionBody("The tide comes in", 24, {{"logprobs", 3}}));
  ASSERT_EQ(response.status, 200) << response.body;
  const json answer = response.Json();
  const json& choice = answer["choices"][0];
  EXPECT_EQ(choice["text"], reply.text);
  EXPECT_EQ(choice["logprobs"]["token_logprobs"].get<std::vector<float>>(), reply.logprobs);
  std::string joined;
  for (const json& token : choice["logprobs"]["tokens"]) joined += token;
  EXPECT_EQ(joined, reply.text);
  for (size_t i = 0; i < reply.logprobs.size(); ++i) {
    EXPECT_EQ(choice["logprobs"]["text_offset"][i].get<size_t>(),
              i == 0 ? 0
                     : joined.find(choice["logprobs"]["tokens"][i].get<std::string>(),
                                   choice["logprobs"]["text_offset"][i - 1].get<size_t>() + 1));
  }
  EXPECT_EQ(answer["usage"]["prompt_tokens"], reply.finished.usage().prompt_tokens());
  EXPECT_EQ(answer["usage"]["completion_tokens"], 24);
}

TEST(HttpTest, AStreamJoinedIsTheWholeAnswer) {
  Front front;
  for (const bool chat : {false, true}) {
    const std::string path = chat ? "/v1/chat/completions" : "/v1/completions";
    const json more = chat ? json{{"logprobs", true}, {"top_logprobs", 2}} : json{{"logprobs", 2}};
    json body =
        chat ? ChatBody("Name three fruits \xf0\x9f\x8d\x8e.", 20, more) : CompletionBody("Once upon", 20, more);
    const json whole = front.Post(path, body).Json();
    body["stream"] = true;
    body["stream_options"]["include_usage"] = true;
    std::string text, reason;
    json logprobs;
    json usage;
    for (const json& event : Events(front.Post(path, body).body)) {
      usage = event["usage"];
      if (event["choices"].empty()) continue;
      const json& choice = event["choices"][0];
      text += chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
      if (choice["finish_reason"].is_string()) reason = choice["finish_reason"];
      if (!choice["logprobs"].is_object()) continue;
      for (const auto& [name, list] : choice["logprobs"].items()) {
        for (const json& entry : list) logprobs[name].push_back(entry);
      }
    }
    const json& choice = whole["choices"][0];
    EXPECT_EQ(text, chat ? choice["message"]["content"] : choice["text"]);
    EXPECT_EQ(reason, choice["finish_reason"]);
    json expected = choice["logprobs"];
    expected.erase("refusal");
    logprobs.erase("refusal");
    EXPECT_EQ(logprobs, expected);
    EXPECT_EQ(usage["completion_tokens"], whole["usage"]["completion_tokens"]);
    EXPECT_EQ(usage["prompt_tokens"], whole["usage"]["prompt_tokens"]);
  }
}

TEST(HttpTest, ASessionAndCompressionGoThroughTheExtension) {
  Front front;
  const json first = front
                         .Post("/v1/chat/completions",
                               ChatBody("My name is Ada. Remember it.", 12,
                                        {{"tidepool",
                                          {{"session_id", "http-session"},
                                           {"compression", {{"preset", "snapkv"}, {"budget_fraction", 0.5}}}}}}))
                         .Json();
  ASSERT_TRUE(first.contains("usage")) << first;
  const json second = front
                          .Post("/v1/chat/completions",
                                ChatBody("What is my name?", 12, {{"tidepool", {{"session_id", "http-session"}}}}))
                          .Json();
  ASSERT_TRUE(second.contains("usage")) << second;
  EXPECT_GT(second["usage"]["prompt_tokens"].get<int>(), first["usage"]["total_tokens"].get<int>());
  EXPECT_GT(second["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>(), 0);
  EXPECT_GT(second["choices"][0]["tidepool"]["usage"]["evicted_rows"].get<int>(), 0);
}

TEST(HttpTest, APromptThatIsTooLongIsNamed) {
  Front front;
  std::string words;
  for (int i = 0; i < 9000; ++i) words += "word ";
  std::ofstream(front.dir().File("long.json")) << CompletionBody(words, 1).dump();
  const Response response = front.Ask("/v1/completions", {"--header", "Content-Type: application/json", "--data-binary",
                                                          absl::StrCat("@", front.dir().File("long.json"))});
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.Json()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(response.Json()["error"]["param"], "prompt");
}

TEST(HttpTest, KeysAreReadAgainWhenTheirFileChanges) {
  test::TempDir dir;
  const auto write = [&](const std::string& text) {
    std::ofstream(dir.File("new")) << text;
    std::filesystem::rename(dir.File("new"), dir.File("keys"));
  };
  write("default first-key\n");
  Front front({"--api-keys=" + dir.File("keys")});
  const auto status = [&](const std::string& key) {
    return front.Ask("/v1/models", {"--header", "Authorization: Bearer " + key}).status;
  };
  EXPECT_EQ(status("first-key"), 200);
  EXPECT_EQ(status("second-key"), 401);
  write("default second-key\n");
  while (status("second-key") == 401) {
  }
  EXPECT_EQ(status("second-key"), 200);
  EXPECT_EQ(status("first-key"), 401);
  EXPECT_THAT(front.process().Stderr(), testing::Not(HasSubstr("-key")));
}

TEST(HttpTest, AKilledClientCancelsItsGeneration) {
  Front front;
  const int64_t cancelled = Shared().WorkerStats().requests_cancelled();
  const int64_t finished = Shared().WorkerStats().requests_finished();
  ChildProcess curl(front.Curl(
      "/v1/completions",
      Front::Body(CompletionBody("Once upon a time", 7000, {{"stream", true}, {"tidepool", {{"ignore_eos", true}}}}))));
  curl.WaitForLine("data: ");
  while (Shared().WorkerStats().running_sequences() == 0) {
  }
  curl.Kill();
  while (Shared().WorkerStats().running_sequences() > 0) {
  }
  EXPECT_EQ(Shared().WorkerStats().requests_cancelled(), cancelled + 1);
  EXPECT_EQ(Shared().WorkerStats().requests_finished(), finished);
}

TEST(HttpTest, ManyStreamsAtOnceSayWhatTheySayAlone) {
  constexpr int kClients = 16;
  Front front;
  const auto body = [](int i) {
    return CompletionBody(absl::StrCat("Chapter ", i, ": the"), 6 + i % 5, {{"stream", true}});
  };
  const auto text = [](const Response& response) {
    std::string text;
    for (const json& event : Events(response.body)) text += event["choices"][0]["text"].get<std::string>();
    return text;
  };
  std::vector<Response> together(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.emplace_back([&, i] { together[i] = front.Post("/v1/completions", body(i)); });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kClients; ++i) EXPECT_EQ(text(together[i]), text(front.Post("/v1/completions", body(i)))) << i;
}

TEST(HttpTest, TerminationLetsAnAnswerEnd) {
  Front front;
  ChildProcess curl(front.Curl(
      "/v1/completions",
      Front::Body(CompletionBody("Once upon a time", 200, {{"stream", true}, {"tidepool", {{"ignore_eos", true}}}}))));
  curl.WaitForLine("data: ");
  EXPECT_EQ(front.process().Terminate(), ExitStatus::Exited(0));
  EXPECT_EQ(curl.Wait(), ExitStatus::Exited(0)) << curl.Stderr();
  EXPECT_EQ(Events(curl.Stdout()).back()["choices"][0]["finish_reason"], "length");
}

TEST(HttpTest, TerminationAgainstALongAnswerEndsItInTime) {
  Front front({"--drain-time=0"});
  ChildProcess curl(front.Curl(
      "/v1/completions",
      Front::Body(CompletionBody("Once upon a time", 7000, {{"stream", true}, {"tidepool", {{"ignore_eos", true}}}}))));
  curl.WaitForLine("data: ");
  EXPECT_EQ(front.process().Terminate(), ExitStatus::Exited(0));
  EXPECT_NE(curl.Wait(), ExitStatus::Exited(0)) << "curl sees that the stream broke";
  while (Shared().WorkerStats().running_sequences() > 0) {
  }
}

TEST(HttpTest, AFrontMayListenOnAUnixSocket) {
  test::TempDir dir;
  ChildProcess front(
      {test::BinaryPath("tidepool-http"), "--listen=unix:" + dir.File("s"), "--workers=" + Shared().worker_address()});
  front.WaitForLine("listening on unix:");
  const test::ProgramResult result =
      test::RunProgram({"curl", "--silent", "--unix-socket", dir.File("s"), "http://localhost/health"});
  EXPECT_THAT(result.out, HasSubstr(R"("status":"ok")"));
}

TEST(HttpUsageTest, MistakesAreNamedAndExitWith2) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--worker=x"}, "--worker"},
      {{"extra"}, "'extra'"},
      {{"--workers=nowhere"}, "--workers: 'nowhere'"},
      {{"--workers="}, "--workers"},
      {{"--model-id=a model"}, "--model-id: 'a model'"},
      {{"--listen=here"}, "listen: 'here'"},
      {{"--listen=0.0.0.0:0"}, "needs --insecure"},
      {{"--api-keys=/nonexistent"}, "--api-keys: cannot read"},
      {{"--request-timeout=0"}, "--request-timeout: 0 is not in 1"},
      {{"--http-threads=65"}, "--http-threads: 65"},
      {{"--max-connections=0"}, "--max-connections: 0"},
      {{"--drain-time=-1"}, "--drain-time: -1"},
      {{"--chat-max-tokens=0"}, "--chat-max-tokens: 0"},
  };
  for (auto [arguments, named] : cases) {
    arguments.insert(arguments.begin(), test::BinaryPath("tidepool-http"));
    const test::ProgramResult result = test::RunProgram(arguments);
    EXPECT_EQ(result.exit, ExitStatus::Exited(2)) << named;
    EXPECT_THAT(result.err, HasSubstr(named));
  }
  const test::ProgramResult help = test::RunProgram({test::BinaryPath("tidepool-http"), "--help"});
  EXPECT_EQ(help.exit, ExitStatus::Exited(0));
  EXPECT_THAT(help.out, HasSubstr("--chat-max-tokens"));
}

}  // namespace
}  // namespace tidepool
