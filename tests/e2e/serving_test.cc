// The small real model behind real processes: many clients at once, cancellation, bad input, draining.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/e2e/cluster.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

using testing::HasSubstr;
using testing::Not;

test::Cluster& Shared() {
  static test::Cluster cluster(
      {.model = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"), .worker_flags = {"--device-kv-bytes=512MiB"}});
  return cluster;
}

std::string Text(int words, int seed) {
  static const char* const kWords[] = {"water", "stone", "light",  "river",  "under",
                                       "seven", "quiet", "copper", "letter", "garden"};
  std::mt19937 random(static_cast<unsigned>(seed));
  std::string text;
  for (int i = 0; i < words; ++i) text += std::string(i == 0 ? "" : " ") + kWords[random() % 10];
  return text;
}

v1::GenerateRequest Request(int words, int max_tokens, int seed) {
  v1::GenerateRequest request;
  request.set_text(Text(words, seed));
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

TEST(ServingTest, AnswersOf32ConcurrentClientsEqualTheirSingleAnswers) {
  constexpr int kClients = 32;
  auto request = [](int i) {
    v1::GenerateRequest r = Request(5 + 9 * (i % 16), 6 + i % 5, i);
    if (i % 4 == 1) {
      r.mutable_compression()->set_preset(i % 8 == 1 ? "snapkv" : "h2o");
      r.mutable_compression()->set_budget_fraction(0.3);
    }
    return r;
  };
  test::Cluster& cluster = Shared();  // its processes end with the thread that starts them
  std::vector<test::Reply> together(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) clients.emplace_back([&, i] { together[i] = cluster.Generate(request(i)); });
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kClients; ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status.error_message();
    const test::Reply alone = Shared().Generate(request(i));
    EXPECT_EQ(together[i].ids, alone.ids) << "client " << i;
    EXPECT_EQ(together[i].text, alone.text);
  }
  EXPECT_EQ(Shared().WorkerStats().used_pages(), 0);
}

TEST(ServingTest, ACancelledStreamFreesItsPages) {
  int tokens = 0;
  const test::Reply reply = Shared().Generate(Request(100, 4000, 1), [&](const v1::GenerateResponse& response) {
    if (response.has_tokens()) tokens += response.tokens().ids_size();
    return tokens < 5;
  });
  EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::CANCELLED);
  // The server learns of it on its own; nothing else runs here, so the pages must come back.
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  while (Shared().WorkerStats().used_pages() != 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  const v1::GetWorkerStatsResponse stats = Shared().WorkerStats();
  EXPECT_EQ(stats.used_pages(), 0);
  EXPECT_EQ(stats.running_sequences(), 0);
  EXPECT_GE(stats.requests_cancelled(), 1);
}

TEST(ServingTest, ADeadlineEndsTheRequestAndFreesItsPages) {
  auto channel = grpc::CreateChannel(Shared().worker_address(), grpc::InsecureChannelCredentials());
  auto stub = v1::Generation::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  auto stream = stub->Generate(&context, Request(100, 8000, 2));
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  while (Shared().WorkerStats().used_pages() != 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::yield();
  EXPECT_EQ(Shared().WorkerStats().used_pages(), 0);
}

TEST(ServingTest, AStoredPrefixIsNotComputedAgain) {
  const test::Reply first = Shared().Generate(Request(300, 8, 777));
  ASSERT_TRUE(first.status.ok());
  EXPECT_EQ(first.finished.usage().cached_prompt_tokens(), 0);
  // Blocks are stored behind the answer: ask until they are there.
  test::Reply second;
  const auto until = std::chrono::steady_clock::now() + test::kProcessTimeout;
  do {
    second = Shared().Generate(Request(300, 8, 777));
  } while (second.finished.usage().cached_prompt_tokens() == 0 && std::chrono::steady_clock::now() < until);
  EXPECT_GE(second.finished.usage().cached_prompt_tokens(), 256);
  EXPECT_EQ(second.ids, first.ids);
}

TEST(ServingTest, BadRequestsAreRefusedByFieldAndTheWorkerLivesOn) {
  struct Case {
    const char* field;
    std::function<void(v1::GenerateRequest&)> spoil;
  };
  const std::vector<Case> cases = {
      {"prompt", [](auto& r) { r.clear_prompt(); }},
      {"prompt", [](auto& r) { r.mutable_token_ids()->add_ids(49'152); }},
      {"prompt", [](auto& r) { r.mutable_token_ids()->add_ids(-1); }},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(-0.1f); }},
      {"top_p", [](auto& r) { r.mutable_sampling()->set_top_p(2); }},
      {"top_k", [](auto& r) { r.mutable_sampling()->set_top_k(-5); }},
      {"min_p", [](auto& r) { r.mutable_sampling()->set_min_p(1); }},
      {"repetition_penalty", [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); }},
      {"logit_bias", [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[99'999] = 1; }},
      {"max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(-1); }},
      {"logprobs", [](auto& r) { r.set_logprobs(21); }},
      {"session_id", [](auto& r) { r.set_session_id("with space"); }},
      {"preset", [](auto& r) { r.mutable_compression()->set_preset("gzip"); }},
      {"budget_fraction",
       [](auto& r) { r.mutable_compression()->set_preset("snapkv"), r.mutable_compression()->set_budget_fraction(0); }},
      {"window_tokens",
       [](auto& r) { r.mutable_compression()->set_preset("snapkv"), r.mutable_compression()->set_window_tokens(0); }},
      {"share",
       [](auto& r) {
         r.mutable_compression()->set_preset("snapkv");
         r.mutable_compression()->mutable_recall()->set_mode(v1::RECALL_MODE_SYNC);
         r.mutable_compression()->mutable_recall()->set_share(0.9);
       }},
  };
  for (const Case& c : cases) {
    v1::GenerateRequest request = Request(5, 3, 1);
    c.spoil(request);
    const test::Reply reply = Shared().Generate(request);
    EXPECT_EQ(reply.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << c.field << ": " << reply.status.error_message();
    EXPECT_THAT(reply.status.error_message(), HasSubstr(c.field));
  }
  EXPECT_TRUE(Shared().Generate(Request(5, 3, 1)).status.ok());
}

TEST(ServingTest, TextThatIsNoUtf8IsAnsweredAndNotLogged) {
  v1::GenerateRequest request = Request(5, 3, 1);
  request.set_text("tide \xff\xfe pool");
  EXPECT_FALSE(Shared().Generate(request).status.ok());
  const auto admin =
      v1::CacheAdmin::NewStub(grpc::CreateChannel(Shared().cache_address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::DescribeSessionRequest session;
  session.set_session_id("\xff\xfe");
  v1::SessionDescription described;
  EXPECT_FALSE(admin->DescribeSession(&context, session, &described).ok());
  EXPECT_TRUE(Shared().Generate(Request(5, 3, 1)).status.ok());
  EXPECT_THAT(Shared().worker().Stderr() + Shared().cache().Stderr(), Not(HasSubstr("UTF-8")));
}

// SIGTERM at the first token of a request.
test::Reply EndedWhileItAnswers(test::Cluster& cluster, int max_tokens) {
  bool asked = false;
  return cluster.Generate(Request(20, max_tokens, 1), [&](const v1::GenerateResponse& response) {
    if (response.has_tokens() && !std::exchange(asked, true)) cluster.worker().Signal(SIGTERM);
    return true;
  });
}

TEST(DrainTest, ARequestUnderWayIsAnsweredInFull) {
  test::Cluster cluster(
      {.model = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"), .worker_flags = {"--drain-time=3600"}});
  const test::Reply reply = EndedWhileItAnswers(cluster, 300);
  EXPECT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.ids.size(), 300u);
  EXPECT_EQ(cluster.worker().Wait(), test::ExitStatus::Exited(0));
  EXPECT_EQ(cluster.Generate(Request(5, 1, 1)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(DrainTest, WhatTakesLongerThanTheDrainTimeIsCancelled) {
  test::Cluster cluster(
      {.model = test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf"), .worker_flags = {"--drain-time=0"}});
  const test::Reply reply = EndedWhileItAnswers(cluster, 8000);
  EXPECT_FALSE(reply.status.ok());
  EXPECT_LT(reply.ids.size(), 8000u);
  EXPECT_EQ(cluster.worker().Wait(), test::ExitStatus::Exited(0));
}

TEST(ValidateConfigTest, MistakesAreFoundWithoutModelAndData) {
  test::TempDir dir;
  const std::string file = dir.File("flags");
  auto run = [&](const std::string& program, const std::string& flags) {
    std::ofstream(file) << flags;
    return test::RunProgram({test::BinaryPath(program), "--flags-file=" + file, "--validate-config"});
  };
  const std::string worker = "--model=/models/none.gguf\n--listen=127.0.0.1:0\n", cache = "--data-dir=/none/data\n";
  EXPECT_EQ(run("tidepool-worker", worker).exit, test::ExitStatus::Exited(0));
  EXPECT_EQ(run("tidepool-cache", cache).exit, test::ExitStatus::Exited(0));
  struct Case {
    const char *program, *flags, *named;
  };
  const std::vector<Case> cases = {
      {"tidepool-worker", "--listen=0.0.0.0:1", "insecure"},
      {"tidepool-worker", "--threads=0", "threads"},
      {"tidepool-worker", "--prefill-chunk=9999", "prefill_chunk"},
      {"tidepool-worker", "--device-kv-bytes=much", "--device-kv-bytes"},
      {"tidepool-worker", "--metrics-address=9464", "metrics_address"},
      {"tidepool-worker", "--metrics-address=0.0.0.0:0", "--metrics-insecure"},
      {"tidepool-worker", "--drain-time=-1", "--drain-time"},
      {"tidepool-worker", "--policies=/none.json", "--policies"},
      {"tidepool-worker", "--modle=x", ":3: --modle"},
      {"tidepool-worker", "--tls-cert=/none.pem\n--tls-key=/none.key", "--tls-cert"},
      {"tidepool-worker", "--access-file=/none", "--access-file"},
      {"tidepool-cache", "--memory-bytes=1KiB", "memory_bytes"},
      {"tidepool-cache", "--threads=65", "threads"},
      {"tidepool-cache", "--disk-ttl=10ms", "disk_ttl 10ms is not 0 or in 1s to 87600h"},
      {"tidepool-cache", "--listen=0.0.0.0:1", "insecure"},
      {"tidepool-cache", "--metrics-address=x", "metrics_address"},
      {"tidepool-cache", "--metrics-address=0.0.0.0:0", "--metrics-insecure"},
      {"tidepool-cache", "--tls-cert=/none.pem\n--tls-key=/none.key", "--tls-cert"},
      {"tidepool-cache", "--access-file=/none", "--access-file"},
      {"tidepool-cache", "--remote-tier=none", "remote_tier"},
  };
  for (const Case& c : cases) {
    const bool is_worker = std::string(c.program) == "tidepool-worker";
    const test::ProgramResult result = run(c.program, (is_worker ? worker : cache) + c.flags);
    EXPECT_EQ(result.exit, test::ExitStatus::Exited(2)) << c.flags;
    EXPECT_THAT(result.err, HasSubstr(c.named)) << c.flags;
  }
}

}  // namespace
}  // namespace tidepool
