// Asynchronous calls to a real worker of a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "client/generation_client.h"
#include "tests/client/http/tiny_worker.h"
#include "tests/support/eventually.h"

namespace tidepool {
namespace {

using test::TinyWorker;

class Collector : public GenerationCall::Reader {
 public:
  void OnResponse(v1::GenerateResponse response) override {
    MutexLock lock(&mutex_);
    ++responses_;
    text_ += response.tokens().text();
    changed_.SignalAll();
  }
  void OnDone(absl::StatusOr<v1::Finished> result) override {
    MutexLock lock(&mutex_);
    result_ = std::move(result);
    changed_.SignalAll();
  }
  // Waits for response number `count` (1 is the first), or the end: false.
  bool WaitForResponse(int count) {
    MutexLock lock(&mutex_);
    while (responses_ < count && !result_.has_value()) changed_.Wait(&mutex_);
    return responses_ >= count;
  }
  absl::StatusOr<v1::Finished> Result() {
    MutexLock lock(&mutex_);
    while (!result_.has_value()) changed_.Wait(&mutex_);
    return *result_;
  }
  int responses() {
    MutexLock lock(&mutex_);
    return responses_;
  }
  std::string text() {
    MutexLock lock(&mutex_);
    return text_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int responses_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::StatusOr<v1::Finished>> result_ ABSL_GUARDED_BY(mutex_);
};

v1::GenerateRequest Request(int max_tokens) {
  v1::GenerateRequest request;
  for (const int id : {1, 2, 3, 4}) request.mutable_token_ids()->add_ids(id);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

TEST(StartCallTest, ItSaysWhatTheBlockingCallSays) {
  TinyWorker worker;
  GenerationClient client(worker.address());
  std::string text;
  const auto expected =
      client.Generate(Request(40), [&](const v1::GenerateResponse& response) { text += response.tokens().text(); });
  auto reader = std::make_shared<Collector>();
  const std::shared_ptr<GenerationCall> call = client.StartGenerate(Request(40), reader);
  for (int i = 1; reader->WaitForResponse(i); ++i) call->Next();
  const auto result = reader->Result();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(reader->text(), text);
  EXPECT_EQ(result->usage().generated_tokens(), expected->usage().generated_tokens());
  while (reader.use_count() > 1) std::this_thread::yield();  // the call lets go of its reader
}

TEST(StartCallTest, EveryResponseButTheFirstIsAskedFor) {
  TinyWorker worker;
  GenerationClient client(worker.address());
  auto reader = std::make_shared<Collector>();
  const std::shared_ptr<GenerationCall> call = client.StartGenerate(Request(10), reader);
  reader->WaitForResponse(1);
  worker.held().WaitForFinished(1);
  for (int i = 1; reader->WaitForResponse(i); ++i) {
    EXPECT_EQ(reader->responses(), i);
    call->Next();
  }
  EXPECT_TRUE(reader->Result().ok());
}

TEST(StartCallTest, CancellingEndsItWhileTheReaderHasAskedAndWhileItHasNot) {
  TinyWorker worker;
  GenerationClient client(worker.address());
  int ended = 0;
  for (const bool asked : {true, false}) {
    worker.held().Hold(3);
    auto reader = std::make_shared<Collector>();
    const std::shared_ptr<GenerationCall> call = client.StartGenerate(Request(200), reader);
    reader->WaitForResponse(1);
    if (asked) call->Next();
    call->Cancel();
    EXPECT_EQ(reader->Result().status().code(), absl::StatusCode::kCancelled);
    call->Cancel();  // nothing left to do
    call->Next();
    // The client has its end at once; only now has the worker seen it and stopped holding.
    worker.held().WaitForFinished(++ended);
  }
  EXPECT_EQ(worker.Stats().requests_cancelled(), 2);
}

TEST(StartCallTest, TheEndSaysWhatWentWrong) {
  auto worker = std::make_unique<TinyWorker>();
  GenerationClient client(worker->address());
  auto wrong = std::make_shared<Collector>();
  v1::GenerateRequest request = Request(1);
  request.mutable_sampling()->set_temperature(11);
  client.StartGenerate(request, wrong);
  EXPECT_EQ(wrong->Result().status().code(), absl::StatusCode::kInvalidArgument);

  worker->held().Hold(3);
  auto late = std::make_shared<Collector>();
  const auto call = client.StartGenerate(Request(200), late, absl::Now() + absl::Milliseconds(200));
  for (int i = 1; late->WaitForResponse(i); ++i) call->Next();
  EXPECT_EQ(late->Result().status().code(), absl::StatusCode::kDeadlineExceeded);
  worker->held().WaitForFinished(1);

  const std::string address = worker->address();
  worker.reset();
  auto nobody = std::make_shared<Collector>();
  client.StartChat(v1::ChatRequest(), nobody);
  EXPECT_EQ(nobody->Result().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(nobody->Result().status().message()), testing::HasSubstr(address));
}

TEST(StartCallTest, TheLastChannelOfTheProcessMayGoWithACallThatEnds) {
  for (int i = 0; i < 20; ++i) {
    auto client = std::make_unique<GenerationClient>("unix:/nobody/is/here");
    std::promise<void> gone, ended;
    client->StartEstimate(
        v1::EstimateRequest(),
        [&](const absl::StatusOr<v1::EstimateResponse>&) {
          gone.get_future().wait();
          ended.set_value();
        },
        absl::Now() + absl::Seconds(10));
    client.reset();  // from here on the call alone holds the channel
    gone.set_value();
    ended.get_future().wait();
    test::Tick(std::chrono::milliseconds(10));  // without another channel that holds gRPC's threads
  }
}

TEST(DetokenizeTest, LengthsSayWhatEachTokenGave) {
  TinyWorker worker;
  GenerationClient client(worker.address());
  v1::DetokenizeRequest all, one;
  for (int id = 0; id < client.GetModel()->vocabulary(); ++id) all.add_ids(id);
  all.set_render_special(true);
  const auto response = client.Detokenize(all);
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_EQ(response->lengths_size(), all.ids_size());
  size_t begin = 0;
  for (const int id : {0, 100, 271}) {
    begin = 0;
    for (int i = 0; i < id; ++i) begin += static_cast<size_t>(response->lengths(i));
    one.clear_ids();
    one.add_ids(id);
    one.set_render_special(true);
    EXPECT_EQ(client.Detokenize(one)->text(),
              response->text().substr(begin, static_cast<size_t>(response->lengths(id))));
  }
}

}  // namespace
}  // namespace tidepool
