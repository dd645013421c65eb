// Three cache pods and a worker as real processes: pods are killed, hang, come back and are drained under sessions that
// must not notice.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "tests/e2e/fleet.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/generation.grpc.pb.h"

namespace tidepool {
namespace {

using testing::HasSubstr;
using PodState = v1::CachePodStats;

struct Answer {
  grpc::Status status;
  std::vector<int32_t> ids;
  v1::Usage usage;
};

class ShardCluster {
 public:
  explicit ShardCluster(std::vector<std::string> worker_flags = {}) : fleet_(OptionsOf(std::move(worker_flags))) {}

  void StartPod(int pod) { fleet_.StartPod(pod); }
  test::ChildProcess& pod(int pod) { return fleet_.pod(pod); }
  std::string address(int pod) const { return fleet_.pod_address(pod); }
  std::string worker_address() const { return fleet_.worker_address(0); }
  // What is resident is gone: sessions are loaded from the pods.
  void RestartWorker() {
    fleet_.worker(0).Kill();
    fleet_.StartWorker(0);
    // The connection to the one before may be used once more, and found closed.
    EXPECT_TRUE(test::Eventually([&] {
      grpc::ClientContext context;
      v1::GetWorkerStatsResponse response;
      return fleet_.generation(0).GetWorkerStats(&context, {}, &response).ok();
    }));
  }

  Answer Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + test::kProcessTimeout);
    auto stream = fleet_.generation(0).Generate(&context, request);
    Answer answer;
    v1::GenerateResponse response;
    while (stream->Read(&response)) {
      answer.ids.insert(answer.ids.end(), response.tokens().ids().begin(), response.tokens().ids().end());
      if (response.has_finished()) answer.usage = response.finished().usage();
    }
    answer.status = stream->Finish();
    return answer;
  }

  v1::GetWorkerStatsResponse Stats() { return fleet_.WorkerStats(0); }
  v1::CachePodStats PodStats(int pod) {
    const v1::GetWorkerStatsResponse all = Stats();
    std::vector<v1::CachePodStats> found;
    for (const v1::CachePodStats& stats : all.cache_pods()) {
      if (stats.address() == address(pod)) found.push_back(stats);
    }
    EXPECT_LE(found.size(), 1u) << "pod " << pod << " is reported twice";
    return found.empty() ? v1::CachePodStats() : found.front();
  }
  void WaitForPod(int pod, v1::CachePodStats::State state) {
    EXPECT_TRUE(test::Eventually([&] { return PodStats(pod).state() == state; })) << "pod " << pod;
  }

 private:
  static test::Fleet::Options OptionsOf(std::vector<std::string> worker_flags) {
    worker_flags.push_back("--cache-slow-start=0s");
    return {.model = test::ModelPath("lookup.gguf"), .worker_flags = std::move(worker_flags)};
  }

  test::Fleet fleet_;
};

struct Case {
  std::vector<int32_t> context;
  std::vector<int32_t> questions, answers;
};

// The shortest of the lookup model's contexts.
const Case& TheCase() {
  static const Case shortest = [] {
    Case best;
    for (const nlohmann::json& c :
         nlohmann::json::parse(test::ReadFile(test::ReferencePath("lookup_model/cases.json")))) {
      Case one;
      one.context = c["context_ids"].get<std::vector<int32_t>>();
      for (const nlohmann::json& q : c["questions"]) {
        one.questions.push_back(q[0].get<int32_t>());
        one.answers.push_back(q[1].get<int32_t>());
      }
      if (best.context.empty() || one.context.size() < best.context.size()) best = one;
    }
    return best;
  }();
  return shortest;
}

// `preset` full: nothing is compressed, and nothing recalled.
v1::GenerateRequest Turn(const std::string& session, const std::string& preset, const std::vector<int32_t>& tokens,
                         int max_tokens) {
  v1::GenerateRequest request;
  request.mutable_token_ids()->mutable_ids()->Assign(tokens.begin(), tokens.end());
  request.set_session_id(session);
  request.mutable_stop()->set_max_tokens(max_tokens);
  request.mutable_stop()->set_ignore_eos(true);
  v1::CompressionParams& compression = *request.mutable_compression();
  compression.set_preset(preset);
  if (preset == "full") return request;
  compression.set_budget_fraction(0.2);
  compression.mutable_recall()->set_mode(v1::RECALL_MODE_SYNC);
  return request;
}

// Each session's context differs, so that no two share blocks.
std::vector<int32_t> ContextOf(int session) {
  std::vector<int32_t> context = TheCase().context;
  context.insert(context.begin() + 1, TheCase().context.begin() + 1 + session, TheCase().context.begin() + 9 + session);
  return context;
}

// The tokens of a session's turns: its context, then question after question. Before turn i, `before(i)`.
std::vector<std::vector<int32_t>> RunSession(ShardCluster& cluster, const std::string& name, const std::string& preset,
                                             int session, int questions,
                                             const std::function<void(int)>& before = nullptr) {
  std::vector<std::vector<int32_t>> turns;
  for (int turn = 0; turn <= questions; ++turn) {
    if (before) before(turn);
    const Answer answer = cluster.Generate(
        turn == 0 ? Turn(name, preset, ContextOf(session), 1)
                  : Turn(name, preset, {TheCase().questions[(session * 7 + turn) % TheCase().questions.size()]}, 2));
    EXPECT_TRUE(answer.status.ok()) << name << ", turn " << turn << ": " << answer.status.error_message();
    EXPECT_FALSE(answer.usage.degraded()) << name << ", turn " << turn;
    EXPECT_EQ(answer.usage.lost_rows(), 0) << name << ", turn " << turn;
    turns.push_back(answer.ids);
  }
  return turns;
}

// Turns that all sessions together have begun, so that faults come in the middle of the load.
class Turns {
 public:
  void Add() {
    MutexLock lock(&mutex_);
    ++count_;
    changed_.SignalAll();
  }
  void WaitFor(int count) {
    MutexLock lock(&mutex_);
    while (count_ < count) changed_.Wait(&mutex_);
  }
  // Sessions wait at a turn until the test lets them go on.
  void WaitUntilOpen() {
    MutexLock lock(&mutex_);
    while (!open_) changed_.Wait(&mutex_);
  }
  void Open() {
    MutexLock lock(&mutex_);
    open_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(ShardsTest, WithTwoCopiesPodsAreKilledUnderLoadAndNoTokenDiffers) {
  ShardCluster cluster({"--cache-copies=2"});
  static constexpr int kSessions = 4, kQuestions = 8;
  std::vector<std::vector<std::vector<int32_t>>> undisturbed(kSessions), disturbed(kSessions);
  for (int session = 0; session < kSessions; ++session) {
    undisturbed[session] = RunSession(cluster, absl::StrCat("calm-", session), "snapkv", session, kQuestions);
  }
  Turns turns;
  std::vector<std::thread> clients;
  for (int session = 0; session < kSessions; ++session) {
    clients.emplace_back([&, session] {
      disturbed[session] =
          RunSession(cluster, absl::StrCat("storm-", session), "snapkv", session, kQuestions, [&turns](int turn) {
            turns.Add();
            if (turn == kQuestions / 2) turns.WaitUntilOpen();
          });
    });
  }
  turns.WaitFor(2 * kSessions);
  cluster.pod(1).Kill();  // half of the turns to go before the sessions wait
  cluster.WaitForPod(1, PodState::STATE_DOWN);
  cluster.StartPod(1);
  cluster.WaitForPod(1, PodState::STATE_UP);
  turns.Open();
  turns.WaitFor((kQuestions / 2 + 2) * kSessions);
  cluster.pod(2).Kill();
  for (std::thread& client : clients) client.join();
  for (int session = 0; session < kSessions; ++session) EXPECT_EQ(disturbed[session], undisturbed[session]) << session;
  cluster.WaitForPod(2, PodState::STATE_DOWN);
  EXPECT_GT(cluster.Stats().recalled_rows(), 0);
  EXPECT_EQ(cluster.Stats().lost_rows(), 0);
  EXPECT_EQ(cluster.Stats().degraded_manifests(), 0);
}

TEST(ShardsTest, WithOneCopyWhatADeadPodHadIsComputedAgainAndServedWhenItIsBack) {
  ShardCluster cluster;
  constexpr int kSession = 1;
  const std::vector<std::vector<int32_t>> undisturbed = RunSession(cluster, "calm", "full", kSession, 3);
  const int context = static_cast<int>(ContextOf(kSession).size());
  std::vector<std::vector<int32_t>> turns = RunSession(cluster, "storm", "full", kSession, 1);

  // Another worker, without one of the pods: the turn is there, its blocks in part.
  cluster.pod(0).Kill();
  cluster.RestartWorker();
  const auto ask = [&](int turn) {
    return cluster.Generate(
        Turn("storm", "full", {TheCase().questions[(kSession * 7 + turn) % TheCase().questions.size()]}, 2));
  };
  const Answer recomputed = ask(2);
  ASSERT_TRUE(recomputed.status.ok()) << recomputed.status.error_message();
  EXPECT_EQ(recomputed.ids, undisturbed[2]);
  EXPECT_LT(recomputed.usage.cached_prompt_tokens(), context);

  // What the pod had stored is had from it again: nothing is computed that was computed before.
  cluster.StartPod(0);
  cluster.WaitForPod(0, PodState::STATE_UP);
  cluster.RestartWorker();
  const Answer calm =
      cluster.Generate(Turn("calm", "full", {TheCase().questions[(kSession * 7 + 4) % TheCase().questions.size()]}, 2));
  ASSERT_TRUE(calm.status.ok()) << calm.status.error_message();
  EXPECT_GE(calm.usage.cached_prompt_tokens(), context);
  EXPECT_GT(cluster.PodStats(0).fetched_bytes(), 0);
  EXPECT_EQ(ask(3).ids, undisturbed[3]);
}

TEST(ShardsTest, ADrainedPodGoesAndItsSessionsGoOn) {
  ShardCluster cluster;
  constexpr int kSessions = 3;
  std::vector<std::vector<std::vector<int32_t>>> undisturbed(kSessions);
  for (int session = 0; session < kSessions; ++session) {
    undisturbed[session] = RunSession(cluster, absl::StrCat("calm-", session), "full", session, 2);
    RunSession(cluster, absl::StrCat("moved-", session), "full", session, 1);
  }
  const test::ProgramResult drained =
      test::RunProgram({test::BinaryPath("tidepool"), "admin", "drain", "--cache=" + cluster.address(1)});
  ASSERT_EQ(drained.exit, test::ExitStatus::Exited(0)) << drained.err;
  EXPECT_THAT(drained.out, HasSubstr("drained: it can be taken away"));
  const nlohmann::json stats = nlohmann::json::parse(
      test::RunProgram({test::BinaryPath("tidepool"), "admin", "stats", "--json", "--cache=" + cluster.address(1)})
          .out);
  EXPECT_EQ(stats["draining"], true);
  EXPECT_EQ(stats["pod_name"], "pod-1");
  cluster.WaitForPod(1, PodState::STATE_DRAINING);
  EXPECT_EQ(cluster.pod(1).Terminate(), test::ExitStatus::Exited(0));

  cluster.RestartWorker();
  for (int session = 0; session < kSessions; ++session) {
    const Answer answer =
        cluster.Generate(Turn(absl::StrCat("moved-", session), "full",
                              {TheCase().questions[(session * 7 + 2) % TheCase().questions.size()]}, 2));
    ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.ids, undisturbed[session][2]) << session;
    EXPECT_GE(answer.usage.cached_prompt_tokens(), static_cast<int64_t>(ContextOf(session).size())) << session;
  }
  const test::ProgramResult all = test::RunProgram(
      {test::BinaryPath("tidepool"), "admin", "stats", "--cache=" + cluster.address(0) + "," + cluster.address(2)});
  EXPECT_EQ(all.exit, test::ExitStatus::Exited(0)) << all.err;
  EXPECT_THAT(all.out, HasSubstr("pod-0"));
  EXPECT_THAT(all.out, HasSubstr("pod-2"));
  const test::ProgramResult worker =
      test::RunProgram({test::BinaryPath("tidepool"), "admin", "stats", "--worker=" + cluster.worker_address()});
  EXPECT_THAT(worker.out, HasSubstr("DOWN"));
}

TEST(ShardsTest, FlagsThatAreWrongAreUsageErrorsThatNameThem) {
  const std::string worker = test::BinaryPath("tidepool-worker"), cache = test::BinaryPath("tidepool-cache");
  const test::TempDir dir;
  const std::string data = "--data-dir=" + dir.path();
  for (const std::vector<std::string>& argv : std::vector<std::vector<std::string>>{
           {worker, "--model=x", "--cache=a:1,b"},
           {worker, "--model=x", "--cache=dns:///a"},
           {worker, "--model=x", "--cache-copies=3"},
           {worker, "--model=x", "--cache-slow-start=-1s"},
           {cache, data, "--listen=127.0.0.1:0", "--peers=a:1,a:1"},
           {cache, data, "--listen=127.0.0.1:0", "--pod-name=a b"},
       }) {
    const test::ProgramResult result = test::RunProgram(argv);
    EXPECT_EQ(result.exit, test::ExitStatus::Exited(2)) << argv.back();
    const std::string flag = argv.back().substr(2, argv.back().find('=') - 2);
    EXPECT_TRUE(result.err.find(flag) != std::string::npos || result.err.find("pod_name") != std::string::npos)
        << result.err;
  }
}

TEST(ShardsTest, APodThatHangsIsLeftOutAndRequestsGoOn) {
  ShardCluster cluster;
  const std::vector<std::vector<int32_t>> undisturbed = RunSession(cluster, "calm", "full", 2, 2);
  cluster.pod(2).Signal(SIGSTOP);
  EXPECT_EQ(RunSession(cluster, "storm", "full", 2, 2), undisturbed);
  cluster.WaitForPod(2, PodState::STATE_DOWN);
  cluster.pod(2).Signal(SIGCONT);
  cluster.WaitForPod(2, PodState::STATE_UP);
  EXPECT_EQ(RunSession(cluster, "after", "full", 2, 2), undisturbed);
}

}  // namespace
}  // namespace tidepool
