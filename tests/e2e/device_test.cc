// A worker on the cuda backend with its cache service, as real processes: on the emulated device, or on the GPU that
// TIDEPOOL_TEST_DEVICE names.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/e2e/cluster.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

std::string DeviceFlag() {
  const char* name = std::getenv("TIDEPOOL_TEST_DEVICE");
  return std::string("--device=") + (name != nullptr ? name : "emulated");
}

std::string Model() { return test::DataPath("tiny_models/llama_f32.gguf"); }

v1::GenerateRequest Turn(int tokens, v1::RecallMode recall) {
  v1::GenerateRequest request;
  for (int i = 0; i < tokens; ++i) request.mutable_token_ids()->add_ids(3 + i * 37 % 200);
  request.mutable_stop()->set_max_tokens(8);
  request.mutable_stop()->set_ignore_eos(true);
  request.set_session_id("session");
  request.mutable_compression()->set_preset("snapkv");
  request.mutable_compression()->set_budget_fraction(0.3);
  request.mutable_compression()->set_window_tokens(8);
  request.mutable_compression()->mutable_recall()->set_mode(recall);
  return request;
}

class DeviceServingTest : public testing::TestWithParam<v1::RecallMode> {};

TEST_P(DeviceServingTest, ASessionIsRecalledFromTheCacheServiceAndGoesOnAfterTheWorkerWasKilled) {
  test::Cluster cluster(
      {.model = Model(), .worker_flags = {DeviceFlag(), "--device-memory=0.1", "--prefill-chunk=128"}});
  for (int turn = 0; turn < 3; ++turn) {
    const test::Reply reply = cluster.Generate(Turn(turn == 0 ? 300 : 20, GetParam()));
    ASSERT_TRUE(reply.status.ok()) << reply.status.error_message();
    EXPECT_EQ(reply.ids.size(), 8u);
    const v1::Usage& usage = reply.finished.usage();
    EXPECT_GT(usage.evicted_rows(), 0);
    EXPECT_GT(usage.recalled_rows(), 0);
    EXPECT_EQ(usage.lost_rows(), 0);
    EXPECT_FALSE(usage.degraded());
    EXPECT_GE(usage.cached_prompt_tokens(), turn == 0 ? 0 : 300);
    if (turn == 1) {
      cluster.KillWorker();
      cluster.StartWorker();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Recall, DeviceServingTest, testing::Values(v1::RECALL_MODE_SYNC, v1::RECALL_MODE_ASYNC),
                         [](const auto& test) { return v1::RecallMode_Name(test.param); });

TEST(DeviceFlagTest, WhatCannotBeIsRefusedByName) {
  auto refuses = [](const std::string& flag, const std::string& more, const std::string& message) {
    const test::ProgramResult result = test::RunProgram(
        {test::BinaryPath("tidepool-worker"), "--model=" + Model(), "--listen=127.0.0.1:0", flag, more});
    EXPECT_NE(result.exit, test::ExitStatus::Exited(0)) << flag;
    EXPECT_THAT(result.err, HasSubstr(message)) << flag << " " << more;
  };
  refuses("--device=cuda:99", "--threads=2", "cuda:99");
  refuses("--device=tpu", "--threads=2", "device: 'tpu' is not cpu, cuda, cuda:N or emulated");
  refuses("--device=cpu", "--device-memory=0.5", "device_memory");
  refuses("--device=emulated", "--device-memory=1.5", "device_memory: 1.5 is not in 0.1 to 0.95");
  refuses("--device=emulated", "--kv-type=f32", "kv_type");
}

}  // namespace
}  // namespace tidepool
