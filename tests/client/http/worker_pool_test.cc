#include "client/http/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/http/tiny_worker.h"
#include "tests/support/temp_dir.h"

namespace tidepool::http {
namespace {

using test::TinyWorker;
using testing::HasSubstr;

std::string IdOf(const WorkerPool& pool, const std::string& tenant) {
  const auto models = pool.Models(tenant);
  return models.empty() ? "" : models.front()->id;
}

void WaitForAnswering(const WorkerPool& pool, int workers) {
  while (pool.answering() != workers) std::this_thread::yield();
}

TEST(WorkerAddressTest, ATenantMayStandBeforeTheAddress) {
  EXPECT_EQ(ParseWorkerAddress("127.0.0.1:7071")->tenant, "default");
  EXPECT_EQ(ParseWorkerAddress("acme=127.0.0.1:7071")->tenant, "acme");
  EXPECT_EQ(ParseWorkerAddress("acme=127.0.0.1:7071")->address, "127.0.0.1:7071");
  EXPECT_EQ(ParseWorkerAddress("unix:/run/a=b")->address, "unix:/run/a=b");
  for (const char* bad : {"", "host", "acme=", "a/b=host:1", "=host:1"})
    EXPECT_FALSE(ParseWorkerAddress(bad).ok()) << bad;
}

TEST(ModelIdTest, AnIdGoesIntoAPath) {
  EXPECT_EQ(ModelIdOf("Smollm2 135M/8k"), "Smollm2-135M-8k");
  EXPECT_EQ(ModelIdOf(""), "model");
}

TEST(WorkerPoolTest, RequestsGoToTheLeastBusyWorkerOfTheirTenant) {
  TinyWorker first, second, other;
  WorkerPool pool({{"default", first.address()}, {"default", second.address()}, {"acme", other.address()}}, "");
  pool.WaitForFirstAnswers();
  EXPECT_EQ(pool.answering(), 3);
  auto a = pool.Choose({"default", "", "", {}});
  auto b = pool.Choose({"default", IdOf(pool, "default"), "", {}});
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_NE(a->address(), b->address());
  const std::string freed = a->address();
  *a = WorkerPool::Lease();
  EXPECT_EQ(pool.Choose({"default", "", "", {}})->address(), freed);
  EXPECT_EQ(pool.Choose({"acme", "", "", {}})->address(), other.address());
  EXPECT_EQ(pool.Choose({"nobody", "", "", {}}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(pool.HasTenant("acme"));
  EXPECT_FALSE(pool.HasTenant("nobody"));
}

TEST(WorkerPoolTest, ASessionStaysWithItsWorkerAndMovesWhenThatGoes) {
  auto first = std::make_unique<TinyWorker>(), second = std::make_unique<TinyWorker>();
  WorkerPool pool({{"default", first->address()}, {"default", second->address()}}, "");
  pool.WaitForFirstAnswers();
  std::set<std::string> used;
  std::string session_of_first;
  for (int i = 0; i < 32; ++i) {
    const std::string session = "session " + std::to_string(i);
    const std::string address = pool.Choose({"default", "", session, {}})->address();
    EXPECT_EQ(pool.Choose({"default", "", session, {}})->address(), address);
    used.insert(address);
    if (address == first->address()) session_of_first = session;
  }
  EXPECT_EQ(used.size(), 2u);
  first.reset();
  WaitForAnswering(pool, 1);
  EXPECT_EQ(pool.Choose({"default", "", session_of_first, {}})->address(), second->address());
  second.reset();
  WaitForAnswering(pool, 0);
  EXPECT_EQ(pool.Choose({"default", "", session_of_first, {}}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(pool.Models("default").empty());
}

TEST(WorkerPoolTest, AWorkerThatComesLaterAndAgainIsFound) {
  test::TempDir dir;
  const std::string address = "unix:" + dir.File("worker");
  WorkerPool pool({{"default", address}}, "my-model");
  pool.WaitForFirstAnswers();
  EXPECT_EQ(pool.answering(), 0);
  // It may have the model, nobody knows yet.
  EXPECT_EQ(pool.Choose({"default", "x", "", {}}).status().code(), absl::StatusCode::kUnavailable);
  for (int i = 0; i < 2; ++i) {
    TinyWorker worker("llama_f32.gguf", address);
    WaitForAnswering(pool, 1);
    EXPECT_EQ(IdOf(pool, "default"), "my-model");
    EXPECT_TRUE(pool.Choose({"default", "my-model", "", {}}).ok());
    EXPECT_THAT(std::string(pool.Choose({"default", "x", "", {}}).status().message()), HasSubstr("model: 'x'"));
    EXPECT_EQ(pool.Choose({"default", "my-model", "", {address}}).status().code(), absl::StatusCode::kUnavailable);
    worker.Stop();
    WaitForAnswering(pool, 0);
  }
}

TEST(WorkerPoolTest, WithSeveralModelsARequestMustSayWhich) {
  TinyWorker llama("llama_f32.gguf"), qwen("qwen2_f32.gguf");
  WorkerPool pool({{"default", llama.address()}, {"default", qwen.address()}}, "");
  pool.WaitForFirstAnswers();
  const auto models = pool.Models("default");
  ASSERT_EQ(models.size(), 2u);
  EXPECT_THAT(std::string(pool.Choose({"default", "", "", {}}).status().message()), HasSubstr("model: is missing"));
  for (const auto& model : models) EXPECT_EQ(pool.Choose({"default", model->id, "", {}})->model().id, model->id);
}

}  // namespace
}  // namespace tidepool::http
