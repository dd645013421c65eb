// Two workers behind one endpoint, the client library's and tidepool-http's: a session whose worker is killed or
// drained in the middle of an answer goes on at the other one, and its client notices nothing. Real processes, the
// small real model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <functional>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/generation_client.h"
#include "client/routed_client.h"
#include "client/routing.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using nlohmann::json;
using test::ChildProcess;

constexpr char kPrompt[] = "Once upon a time there was a small harbour town. ";

class RouterTest : public testing::TestWithParam<int> {
 protected:
  void SetUp() override { Start(1); }
  // Two workers with one cache service, or each with its own.
  void Start(int caches) {
    std::string cache;
    for (int i = 0; i < 2; ++i) {
      if (i < caches) {
        const std::string name = absl::StrCat("cache", i), port_file = dir_.File(name + ".port");
        caches_.push_back(std::make_unique<ChildProcess>(
            std::vector<std::string>{test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0",
                                     "--data-dir=" + dir_.File(name), "--port-file=" + port_file}));
        cache = absl::StrCat("127.0.0.1:", caches_.back()->WaitForPortFile(port_file));
      }
      const std::string file = dir_.File(absl::StrCat("worker", i, ".port"));
      workers_.push_back(std::make_unique<ChildProcess>(std::vector<std::string>{
          test::BinaryPath("tidepool-worker"), "--model=" + test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"),
          "--listen=127.0.0.1:0", "--cache=" + cache, "--port-file=" + file, "--device-kv-bytes=256MiB", "--threads=1",
          "--drain-time=0"}));
      addresses_.push_back(absl::StrCat("127.0.0.1:", workers_.back()->WaitForPortFile(file)));
    }
  }

  ChildProcess& WorkerOf(const std::string& session) {
    const bool second = client::SessionWeight(session, addresses_[1]) > client::SessionWeight(session, addresses_[0]);
    return *workers_[second ? 1 : 0];
  }
  // The worker of the session gets the signal of the parameter.
  void End(const std::string& session) { WorkerOf(session).Signal(GetParam()); }

  test::TempDir dir_;
  std::vector<std::unique_ptr<ChildProcess>> caches_, workers_;
  std::vector<std::string> addresses_;
};

v1::GenerateRequest Turn(const std::string& session, const std::string& text, int max_tokens) {
  v1::GenerateRequest request;
  request.set_session_id(session);
  request.set_text(text);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

TEST_P(RouterTest, TheClientLibraryGoesOnWithASessionAtTheOtherWorker) {
  RoutedClient client(addresses_);
  auto ask = [&](const std::string& session, const std::string& text, int max_tokens,
                 const std::function<void()>& at_first_token) {
    std::string answer;
    const absl::StatusOr<v1::Finished> finished =
        client.Generate(Turn(session, text, max_tokens), [&](const v1::GenerateResponse& response) {
          if (response.has_tokens() && answer.empty()) at_first_token();
          answer += response.tokens().text();
        });
    EXPECT_TRUE(finished.ok()) << finished.status();
    return absl::StrCat(answer, "|", finished.ok() ? finished->session_turns() : -1);
  };
  const auto nothing = [] {};
  std::vector<std::string> expected, answers;
  for (const char* session : {"calm", "stormy"}) {
    std::vector<std::string>& turns = session == std::string("calm") ? expected : answers;
    turns.push_back(ask(session, kPrompt, 8, nothing));
    turns.push_back(ask(session, "And then", 60, [&] {
      if (&turns == &answers) End(session);
    }));
    turns.push_back(ask(session, "The end", 8, nothing));
  }
  EXPECT_EQ(answers, expected);
  EXPECT_EQ(expected.back().substr(expected.back().size() - 2), "|3");
}

TEST_P(RouterTest, TheHttpFrontGoesOnWithASessionAtTheOtherWorker) {
  const std::string port_file = dir_.File("front.port");
  ChildProcess front({test::BinaryPath("tidepool-http"), "--listen=127.0.0.1:0", "--port-file=" + port_file,
                      absl::StrCat("--workers=", addresses_[0], ",", addresses_[1])});
  const std::string url = absl::StrCat("http://127.0.0.1:", front.WaitForPortFile(port_file), "/v1/completions");
  auto start = [&](const std::string& session, const std::string& prompt, int max_tokens) {
    const json body = {{"prompt", prompt},
                       {"max_tokens", max_tokens},
                       {"temperature", 0},
                       {"stream", true},
                       {"tidepool", {{"session_id", session}, {"ignore_eos", true}}}};
    return std::make_unique<ChildProcess>(
        std::vector<std::string>{"curl", "--silent", "--show-error", "--fail", "--no-buffer", url, "--header",
                                 "Content-Type: application/json", "--data-binary", body.dump()});
  };
  auto text_of = [](ChildProcess& curl) {
    EXPECT_EQ(curl.Wait(), test::ExitStatus::Exited(0)) << curl.Stderr();
    const std::string stream = curl.Stdout();
    EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n")) << stream;
    std::string text;
    for (const std::string& event : std::vector<std::string>(absl::StrSplit(stream, "\n\n", absl::SkipEmpty()))) {
      if (event.starts_with("data: {")) text += json::parse(event.substr(6))["choices"][0]["text"];
    }
    return text;
  };
  std::vector<std::string> expected, answers;
  for (const char* session : {"calm", "stormy"}) {
    std::vector<std::string>& turns = session == std::string("calm") ? expected : answers;
    turns.push_back(text_of(*start(session, kPrompt, 8)));
    const auto second = start(session, "And then", 60);
    if (&turns == &answers) {
      second->WaitForLine("data: {");
      End(session);
    }
    turns.push_back(text_of(*second));
    turns.push_back(text_of(*start(session, "The end", 8)));
  }
  EXPECT_EQ(answers, expected);
}

INSTANTIATE_TEST_SUITE_P(Killed, RouterTest, testing::Values(SIGKILL));
INSTANTIATE_TEST_SUITE_P(Drained, RouterTest, testing::Values(SIGTERM));

class BusyRouterTest : public RouterTest {};

TEST_F(BusyRouterTest, ARequestGoesToTheWorkerThatHasLessToRead) {
  GenerationClient busy(addresses_[0]), idle(addresses_[1]);
  v1::GenerateRequest book;
  for (int i = 0; i < 6000; ++i) book.mutable_token_ids()->add_ids(100 + i % 1000);
  std::thread reader([&] { EXPECT_TRUE(absl::IsCancelled(busy.Generate(book, nullptr).status())); });
  while (busy.GetWorkerStats()->running_sequences() == 0) std::this_thread::yield();
  RoutedClient client(addresses_);
  v1::GenerateRequest request;
  request.set_text(kPrompt);
  request.mutable_stop()->set_max_tokens(2);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.Generate(request, nullptr).ok());
  EXPECT_EQ(idle.GetWorkerStats()->requests_finished(), 3);
  busy.Cancel();
  reader.join();
}

class PrefixRouterTest : public RouterTest {
 protected:
  void SetUp() override { Start(2); }
};

TEST_F(PrefixRouterTest, ARequestGoesToTheWorkerWhoseServiceHasTheLongestPrefixOfIt) {
  GenerationClient workers[] = {GenerationClient(addresses_[0]), GenerationClient(addresses_[1])};
  // Of two books each worker has read one.
  auto request = [](int book, int words) {
    v1::GenerateRequest request;
    for (int i = 0; i < words; ++i) request.mutable_token_ids()->add_ids(1000 * (book + 1) + i % 700);
    request.mutable_stop()->set_max_tokens(2);
    return request;
  };
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(workers[i].Generate(request(i, 600), nullptr).ok());
    v1::EstimateRequest question;
    *question.mutable_generate() = request(i, 700);
    const bool stored = test::Eventually([&] {
      std::promise<absl::StatusOr<v1::EstimateResponse>> estimate;
      workers[i].StartEstimate(
          question, [&](auto found) { estimate.set_value(std::move(found)); }, absl::Now() + absl::Seconds(10));
      const absl::StatusOr<v1::EstimateResponse> found = estimate.get_future().get();
      return found.ok() && found->stored_tokens() >= 512;
    });
    ASSERT_TRUE(stored) << i;
  }
  RoutedClient client(addresses_);
  for (const int book : {1, 0, 0, 1, 1, 0}) {
    const int64_t before = workers[book].GetWorkerStats()->requests_finished();
    const absl::StatusOr<v1::Finished> finished = client.Generate(request(book, 700), nullptr);
    ASSERT_TRUE(finished.ok()) << finished.status();
    EXPECT_GE(finished->usage().cached_prompt_tokens(), 512);
    EXPECT_EQ(workers[book].GetWorkerStats()->requests_finished(), before + 1);
  }
}

}  // namespace
}  // namespace tidepool
