// The service over a real connection on loopback, a real engine and a tiny model.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "security/access_table.h"
#include "security/rpc/server_security.h"
#include "tests/support/collector.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/rpc/held_engine.h"
#include "tidepool/v1/common.pb.h"
#include "tidepool/v1/generation.grpc.pb.h"
#include "worker/model/model.h"
#include "worker/rpc/convert.h"
#include "worker/rpc/worker_server.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

struct Reply {
  grpc::Status status;
  std::vector<int32_t> ids;
  std::string text;
  std::vector<v1::TokenLogprob> logprobs;
  std::vector<v1::Progress> progress;
  int messages = 0;
  v1::Finished finished;
};

class GenerationServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
    EngineOptions options;
    options.device_kv_bytes = size_t{64} << 20;
    options.prefill_chunk_tokens = 32;
    engine_ = *Engine::Create(options, model, nullptr, nullptr);
    held_ = std::make_unique<test::HeldEngine>(engine_.get());
    server_ = *Start("127.0.0.1:0");
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = v1::Generation::NewStub(channel_);
  }
  absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const std::string& listen,
                                                      const ServerSecurityOptions& options = {}) {
    TP_ASSIGN_OR_RETURN(const std::shared_ptr<const ServerSecurity> security, ServerSecurity::Open(options, listen));
    return WorkerServer::Start(listen, security, held_.get());
  }
  // The engine's thread may still be in a sink of held_ when the client has its answer.
  void TearDown() override {
    server_.reset();
    engine_.reset();
  }

  static v1::GenerateRequest Request(int prompt_tokens, int max_tokens, int seed = 1) {
    v1::GenerateRequest request;
    for (int i = 0; i < prompt_tokens; ++i) request.mutable_token_ids()->add_ids((seed * 37 + i * (seed + 5)) % 256);
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }

  using Stream = std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>;
  static Reply Drain(const Stream& stream) {
    Reply reply;
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      ++reply.messages;
      EXPECT_FALSE(reply.finished.has_usage()) << "nothing comes after Finished";
      if (response.has_progress()) reply.progress.push_back(response.progress());
      if (response.has_finished()) reply.finished = response.finished();
      if (!response.has_tokens()) continue;
      reply.ids.insert(reply.ids.end(), response.tokens().ids().begin(), response.tokens().ids().end());
      reply.text += response.tokens().text();
      for (const v1::TokenLogprob& logprob : response.tokens().logprobs()) reply.logprobs.push_back(logprob);
    }
    reply.status = stream->Finish();
    return reply;
  }
  Reply Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    return Drain(stub_->Generate(&context, request));
  }
  v1::GetWorkerStatsResponse Stats() {
    grpc::ClientContext context;
    v1::GetWorkerStatsResponse stats;
    EXPECT_TRUE(stub_->GetWorkerStats(&context, {}, &stats).ok());
    return stats;
  }
  // The serving status that the health service gives for the whole server.
  std::string HealthBytes() {
    grpc::GenericStub health(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const grpc::Slice nothing;
    const grpc::ByteBuffer request(&nothing, 1);
    auto call = health.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
    call->StartCall();
    grpc::ByteBuffer response;
    grpc::Status status;
    call->Finish(&response, &status, nullptr);
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    if (!status.ok()) return status.error_message();
    grpc::Slice bytes;
    EXPECT_TRUE(response.DumpToSingleSlice(&bytes).ok());
    return std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  }

  std::unique_ptr<Engine> engine_;
  std::unique_ptr<test::HeldEngine> held_;
  std::unique_ptr<WorkerServer> server_;  // ends before the engine
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

TEST_F(GenerationServiceTest, AStreamIsTheEnginesAnswer) {
  v1::GenerateRequest message = Request(70, 20);
  message.set_logprobs(3);
  const Reply reply = Generate(message);
  ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
  const test::Answer answer = test::RunRequest(*engine_, *RequestFrom(message, engine_->model().tokenizer()));
  EXPECT_EQ(reply.ids, answer.tokens);
  EXPECT_EQ(reply.text, answer.text);
  ASSERT_EQ(reply.logprobs.size(), 20u);
  for (size_t i = 0; i < reply.logprobs.size(); ++i) {
    EXPECT_EQ(reply.logprobs[i].token(), answer.logprobs[i].token);
    EXPECT_EQ(reply.logprobs[i].logprob(), answer.logprobs[i].logprob);
    ASSERT_EQ(reply.logprobs[i].top_size(), 3);
    for (int k = 0; k < 3; ++k) EXPECT_EQ(reply.logprobs[i].top(k).token(), answer.logprobs[i].top[k].first);
  }
  EXPECT_EQ(reply.finished.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(reply.finished.usage().prompt_tokens(), 70);
  EXPECT_EQ(reply.finished.usage().generated_tokens(), 20);
  EXPECT_EQ(reply.finished.usage().resident_rows(), answer.result.usage.resident_rows);
}

TEST_F(GenerationServiceTest, ProgressRisesToThePromptsLength) {
  const Reply reply = Generate(Request(100, 1));
  ASSERT_FALSE(reply.progress.empty());
  int64_t before = 0;
  for (const v1::Progress& progress : reply.progress) {
    EXPECT_GE(progress.prefilled_tokens(), before);
    EXPECT_EQ(progress.prompt_tokens(), 100);
    before = progress.prefilled_tokens();
  }
  EXPECT_EQ(before, 100);
}

TEST_F(GenerationServiceTest, AStopStringEndsTheTextAndIsNamed) {
  const Reply whole = Generate(Request(20, 30, 3));
  // A stop string that occurs: two characters from the middle of the answer.
  ASSERT_GT(whole.text.size(), 12u);
  size_t at = 4;
  while (at + 1 < whole.text.size() && (whole.text[at] & 0x80 || whole.text[at + 1] & 0x80)) ++at;
  const std::string stop = whole.text.substr(at, 1);
  v1::GenerateRequest request = Request(20, 30, 3);
  request.mutable_stop()->add_strings(stop);
  const Reply stopped = Generate(request);
  EXPECT_EQ(stopped.finished.reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(stopped.finished.stop_string(), stop);
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(stop)));
}

TEST_F(GenerationServiceTest, AChatIsItsRenderedPrompt) {
  v1::ChatRequest chat;
  chat.add_messages()->set_role("user");
  chat.mutable_messages(0)->set_content("what <|im_end|> is it");
  chat.mutable_stop()->set_max_tokens(9);
  chat.mutable_stop()->set_ignore_eos(true);
  grpc::ClientContext context;
  const Reply reply = Drain(stub_->Chat(&context, chat));
  ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
  const GenerationRequest rendered = *RequestFrom(chat, engine_->model());
  v1::GenerateRequest same;
  same.mutable_token_ids()->mutable_ids()->Assign(rendered.prompt.begin(), rendered.prompt.end());
  *same.mutable_stop() = chat.stop();
  EXPECT_EQ(reply.ids, Generate(same).ids);
  EXPECT_EQ(reply.finished.usage().prompt_tokens(), static_cast<int64_t>(rendered.prompt.size()));
}

TEST_F(GenerationServiceTest, CancellingFreesThePages) {
  held_->Hold(3);
  grpc::ClientContext context;
  Stream stream = stub_->Generate(&context, Request(100, 400));
  v1::GenerateResponse response;
  do {
    ASSERT_TRUE(stream->Read(&response));
  } while (!response.has_tokens());
  EXPECT_GT(Stats().used_pages(), 0);
  context.TryCancel();
  EXPECT_EQ(Drain(stream).status.error_code(), grpc::StatusCode::CANCELLED);
  held_->WaitForFinished(1);
  const v1::GetWorkerStatsResponse stats = Stats();
  EXPECT_EQ(stats.used_pages(), 0);
  EXPECT_EQ(stats.running_sequences(), 0);
  EXPECT_EQ(stats.requests_cancelled(), 1);
  EXPECT_LT(stats.generated_tokens(), 400);
}

TEST_F(GenerationServiceTest, ADeadlineEndsTheRequestAndFreesThePages) {
  held_->Hold(3);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(Drain(stub_->Generate(&context, Request(100, 400))).status.error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  held_->WaitForFinished(1);
  EXPECT_EQ(Stats().used_pages(), 0);
  EXPECT_EQ(Stats().requests_finished(), 0);
}

TEST_F(GenerationServiceTest, AClientThatGoesAwayFreesThePages) {
  held_->Hold(3);
  auto own = grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(), [] {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
    return arguments;
  }());
  {
    grpc::ClientContext context;
    Stream stream = v1::Generation::NewStub(own)->Generate(&context, Request(100, 400));
    v1::GenerateResponse response;
    ASSERT_TRUE(stream->Read(&response));
  }
  own.reset();
  held_->WaitForFinished(1);
  EXPECT_EQ(Stats().used_pages(), 0);
  EXPECT_EQ(Stats().requests_cancelled(), 1);
}

TEST_F(GenerationServiceTest, EightStreamsAtOnceEqualTheirSingleAnswers) {
  constexpr int kStreams = 8;
  const auto request = [](int i) {
    v1::GenerateRequest r = Request(10 + 17 * i, 12 + i, i);
    r.mutable_sampling()->set_temperature(i % 2 == 0 ? 0.0f : 0.8f);
    r.mutable_sampling()->set_seed(i);
    if (i % 3 == 1) {
      r.mutable_compression()->set_preset("snapkv");
      r.mutable_compression()->set_budget_fraction(0.5);
      r.mutable_compression()->set_window_tokens(8);
    }
    return r;
  };
  std::vector<Reply> together(kStreams);
  std::vector<std::thread> clients;
  for (int i = 0; i < kStreams; ++i) clients.emplace_back([&, i] { together[i] = Generate(request(i)); });
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kStreams; ++i) {
    ASSERT_TRUE(together[i].status.ok()) << together[i].status.error_message();
    const Reply alone = Generate(request(i));
    EXPECT_EQ(together[i].ids, alone.ids) << "stream " << i;
    EXPECT_EQ(together[i].text, alone.text);
  }
  EXPECT_EQ(Stats().used_pages(), 0);
}

TEST_F(GenerationServiceTest, AReaderThatDoesNotReadHoldsUpNobodyAndLosesNothing) {
  v1::GenerateRequest request = Request(20, 450);
  request.set_logprobs(20);  // more bytes than the connection takes without a reader
  grpc::ClientContext context;
  Stream stream = stub_->Generate(&context, request);
  held_->WaitForFinished(1);  // without a single Read
  EXPECT_TRUE(Generate(Request(10, 5)).status.ok());
  const Reply late = Drain(stream);
  ASSERT_TRUE(late.status.ok()) << late.status.error_message();
  EXPECT_EQ(late.ids.size(), 450u);
  EXPECT_EQ(late.logprobs.size(), 450u);
  EXPECT_EQ(late.ids, Generate(request).ids);
}

TEST_F(GenerationServiceTest, BadRequestsAreRefusedByFieldAndTheServerLivesOn) {
  struct Case {
    const char* field;
    std::function<void(v1::GenerateRequest&)> spoil;
  };
  const std::vector<Case> cases = {
      {"prompt", [](auto& r) { r.clear_prompt(); }},
      {"prompt", [](auto& r) { r.mutable_token_ids()->clear_ids(); }},
      {"prompt[5]: 272", [](auto& r) { r.mutable_token_ids()->add_ids(272); }},
      {"prompt", [](auto& r) { r.mutable_token_ids()->mutable_ids()->Resize(513, 1); }},
      {"temperature", [](auto& r) { r.mutable_sampling()->set_temperature(11); }},
      {"max_tokens", [](auto& r) { r.mutable_stop()->set_max_tokens(-1); }},
      {"logprobs", [](auto& r) { r.set_logprobs(21); }},
      {"preset", [](auto& r) { r.mutable_compression()->set_preset("zip"); }},
      {"dense_layers",
       [](auto& r) {
         r.mutable_compression()->set_preset("d2o");
         r.mutable_compression()->add_dense_layers(2);
       }},
  };
  for (const Case& c : cases) {
    v1::GenerateRequest request = Request(5, 3);
    c.spoil(request);
    const grpc::Status status = Generate(request).status;
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << c.field;
    EXPECT_THAT(status.error_message(), HasSubstr(c.field));
  }
  EXPECT_TRUE(Generate(Request(5, 3)).status.ok());
}

TEST_F(GenerationServiceTest, SessionsAndRecallNeedACacheService) {
  v1::GenerateRequest session = Request(5, 3);
  session.set_session_id("s");
  EXPECT_EQ(Generate(session).status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  v1::GenerateRequest recall = Request(5, 3);
  recall.mutable_compression()->set_preset("snapkv");
  recall.mutable_compression()->mutable_recall()->set_mode(v1::RECALL_MODE_ASYNC);
  const grpc::Status status = Generate(recall).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("compression.recall.mode"));
}

TEST_F(GenerationServiceTest, EndingASessionNeedsItsNameAndACacheService) {
  v1::EndSessionRequest end;
  v1::EndSessionResponse ended;
  grpc::ClientContext first;
  const grpc::Status nameless = stub_->EndSession(&first, end, &ended);
  EXPECT_EQ(nameless.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(nameless.error_message(), HasSubstr("session_id"));
  end.set_session_id("s");
  grpc::ClientContext second;
  EXPECT_EQ(stub_->EndSession(&second, end, &ended).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(GenerationServiceTest, AnEstimateRunsNothing) {
  v1::EstimateRequest request;
  *request.mutable_generate() = Request(50, 3);
  auto estimate = [&] {
    v1::EstimateResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Estimate(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  };
  EXPECT_EQ(estimate().prompt_tokens(), 50);
  EXPECT_EQ(estimate().prompt_tokens_per_second(), 0);
  EXPECT_EQ(engine_->Stats().steps, 0);
  ASSERT_TRUE(Generate(Request(50, 3)).status.ok());
  EXPECT_GT(estimate().prompt_tokens_per_second(), 0);
  request.Clear();
  EXPECT_EQ(estimate().prompt_tokens(), 0);
  request.mutable_generate()->mutable_token_ids()->add_ids(-1);
  v1::EstimateResponse response;
  grpc::ClientContext context;
  const grpc::Status refused = stub_->Estimate(&context, request, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("prompt[0]: -1"));
}

TEST_F(GenerationServiceTest, TextBecomesTokensAndTextAgain) {
  const std::string text = "Zwölf <|im_end|> Boxkämpfer 拳";
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  v1::TokenizeResponse tokens;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, tokenize, &tokens).ok());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = tokens.ids();
  v1::DetokenizeResponse back;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, detokenize, &back).ok());
  EXPECT_EQ(back.text(), text);
}

TEST_F(GenerationServiceTest, ATokenThatDoesNotExistIsNamed) {
  v1::DetokenizeRequest request;
  request.add_ids(1);
  request.add_ids(272);
  v1::DetokenizeResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub_->Detokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ids[1]: 272"));
}

TEST_F(GenerationServiceTest, TheScoreOfAGreedyAnswerIsItsLogprobs) {
  v1::GenerateRequest request = Request(30, 10);
  request.set_logprobs(0);
  const Reply answer = Generate(request);
  v1::ScoreRequest score;
  *score.mutable_token_ids() = request.token_ids();
  score.mutable_scored()->mutable_ids()->Assign(answer.ids.begin(), answer.ids.end());
  v1::ScoreResponse response;
  grpc::ClientContext context;
  const grpc::Status status = stub_->Score(&context, score, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.logprobs_size(), 10);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(response.logprobs(i).token(), answer.ids[i]);
    EXPECT_NEAR(response.logprobs(i).logprob(), answer.logprobs[i].logprob(), 1e-4);
  }
  EXPECT_EQ(response.usage().prompt_tokens(), 30);
}

TEST_F(GenerationServiceTest, ACancelledScoreFreesThePages) {
  held_->Hold(2);
  v1::ScoreRequest score;
  score.mutable_token_ids()->add_ids(1);
  score.mutable_scored()->mutable_ids()->Resize(400, 7);
  v1::ScoreResponse response;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  EXPECT_EQ(stub_->Score(&context, score, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  held_->WaitForFinished(1);
  EXPECT_EQ(Stats().used_pages(), 0);
  EXPECT_EQ(Stats().requests_finished(), 0);
}

TEST_F(GenerationServiceTest, TheModelAndThePoliciesAreDescribed) {
  v1::GetModelResponse model;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->GetModel(&first, {}, &model).ok());
  EXPECT_EQ(model.architecture(), "llama");
  EXPECT_EQ(model.vocabulary(), 272);
  EXPECT_EQ(model.layers(), 2);
  EXPECT_EQ(model.kv_heads(), 2);
  EXPECT_EQ(model.head_dim(), 16);
  EXPECT_EQ(model.chat_template(), "chatml");
  EXPECT_EQ(model.fingerprint(), engine_->model().fingerprint());
  v1::ListPoliciesResponse policies;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->ListPolicies(&second, {}, &policies).ok());
  std::vector<std::string> names;
  for (const auto& policy : policies.policies()) {
    names.push_back(policy.name());
    EXPECT_NE(policy.summary(), "");
  }
  const std::vector<std::string_view> presets = PresetNames();
  EXPECT_EQ(names, std::vector<std::string>(presets.begin(), presets.end()));
}

TEST_F(GenerationServiceTest, HealthSaysServing) {
  EXPECT_EQ(HealthBytes(), std::string("\x08\x01"));  // status: SERVING
}

TEST_F(GenerationServiceTest, ShutdownLetsAnAnswerEndAndTakesNoNewOnes) {
  held_->Hold(3);
  grpc::ClientContext context;
  Stream stream = stub_->Generate(&context, Request(20, 200));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  std::thread shutdown([this] { server_->Shutdown(absl::Seconds(60)); });
  held_->Release();
  const Reply reply = Drain(stream);
  shutdown.join();
  EXPECT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.finished.usage().generated_tokens(), 200);
  EXPECT_EQ(Generate(Request(5, 3)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GenerationServiceTest, AfterItsGraceShutdownCancels) {
  held_->Hold(3);
  grpc::ClientContext context;
  Stream stream = stub_->Generate(&context, Request(20, 400));
  v1::GenerateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(Drain(stream).status.ok());
  held_->WaitForFinished(1);
  EXPECT_EQ(engine_->Stats().used_pages, 0);
}

TEST_F(GenerationServiceTest, PlainTextOffLoopbackNeedsToBeAllowed) {
  const absl::Status refused = Start("0.0.0.0:0").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--insecure"));
  EXPECT_TRUE(Start("0.0.0.0:0", {.insecure = true}).ok());
}

TEST_F(GenerationServiceTest, ATenantOverItsRateIsToldWhenToTryAgain) {
  const test::TempDir dir;
  const Sha256::Digest digest = TokenDigest("secret");
  std::ofstream(dir.File("access")) << "token "
                                    << absl::BytesToHexString(
                                           {reinterpret_cast<const char*>(digest.data()), digest.size()})
                                    << " acme user\nrate acme - 60\n";
  const auto server = Start("127.0.0.1:0", {.access_file = dir.File("access")});
  ASSERT_TRUE(server.ok()) << server.status();
  const auto stub =
      v1::Generation::NewStub(grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  auto generate = [&stub](int tokens) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer secret");
    return Drain(stub->Generate(&context, Request(5, tokens))).status;
  };
  EXPECT_TRUE(generate(100).ok()) << "how much it takes is known only afterwards";
  const grpc::Status refused = generate(1);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("tenant acme has had its 60 generated tokens of a minute"));
  v1::StatusDetails details;
  ASSERT_TRUE(details.ParseFromString(refused.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(grpc::StatusCode::RESOURCE_EXHAUSTED));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  v1::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
  EXPECT_LE(retry.retry_delay().seconds(), 41);
}

TEST_F(GenerationServiceTest, AnAddressInUseIsNamed) {
  const absl::Status status = Start(server_->address()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(server_->address()));
}

TEST_F(GenerationServiceTest, AUnixSocketServes) {
  const test::TempDir dir;
  const std::string address = absl::StrCat("unix:", dir.File("worker.sock"));
  const auto server = Start(address);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->port(), 0);
  const auto stub = v1::Generation::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  EXPECT_TRUE(Drain(stub->Generate(&context, Request(5, 3))).status.ok());
}

}  // namespace
}  // namespace tidepool
