// `tidepool admin`, `doctor` and `size` against two real cache pods and a worker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using nlohmann::json;
using test::ChildProcess;
using test::ExitStatus;
using test::ProgramResult;
using testing::AllOf;
using testing::HasSubstr;

// Four blocks and a bit: the tiny model has a token for each byte.
std::string LongPrompt(const std::string& word) {
  std::string prompt;
  for (int i = 0; prompt.size() < 300; ++i) absl::StrAppend(&prompt, word, " ", i, " ");
  return prompt.substr(0, 300);
}

class AdminTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<test::TempDir>();
    for (int pod = 0; pod < 2; ++pod) {
      const std::string port_file = dir_->File(absl::StrCat("port", pod));
      pods_.push_back(std::make_unique<ChildProcess>(
          std::vector<std::string>{test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0",
                                   absl::StrCat("--pod-name=pod-", pod), "--memory-bytes=64MiB", "--disk-bytes=128MiB",
                                   "--data-dir=" + dir_->File(absl::StrCat("data", pod)), "--port-file=" + port_file}));
      addresses_.push_back(absl::StrCat("127.0.0.1:", pods_.back()->WaitForPortFile(port_file)));
    }
    worker_ = std::make_unique<ChildProcess>(
        std::vector<std::string>{test::BinaryPath("tidepool-worker"), "--listen=127.0.0.1:0", "--model=" + Model(),
                                 "--cache=" + Both(), "--cache-slow-start=0s", "--port-file=" + dir_->File("worker")});
    worker_address_ = absl::StrCat("127.0.0.1:", worker_->WaitForPortFile(dir_->File("worker")));
    std::ofstream(dir_->File("prompt")) << LongPrompt("tide");
    const ProgramResult made = Run({"generate", "--session=kept", "--prompt-file=" + dir_->File("prompt"),
                                    "--max-tokens=2", "--ignore-eos", "--worker=" + worker_address_});
    ASSERT_EQ(made.exit, ExitStatus::Exited(0)) << made.err;
  }
  static void TearDownTestSuite() {
    worker_.reset();
    pods_.clear();
    addresses_.clear();
    dir_.reset();
  }

  static std::string Model() { return test::DataPath("tiny_models/llama_f32.gguf"); }
  static std::string Both() { return absl::StrCat(addresses_[0], ",", addresses_[1]); }
  static ProgramResult Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), test::BinaryPath("tidepool"));
    return test::RunProgram(std::move(arguments));
  }
  static ProgramResult Admin(std::vector<std::string> arguments, const std::string& cache = Both()) {
    arguments.insert(arguments.begin(), "admin");
    arguments.push_back("--cache=" + cache);
    return Run(std::move(arguments));
  }
  static std::vector<json> Lines(const ProgramResult& result) {
    EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
    std::vector<json> lines;
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(result.out, '\n', absl::SkipEmpty()))) {
      lines.push_back(json::parse(line));
    }
    return lines;
  }

  static inline std::unique_ptr<test::TempDir> dir_;
  static inline std::vector<std::unique_ptr<ChildProcess>> pods_;
  static inline std::vector<std::string> addresses_;
  static inline std::unique_ptr<ChildProcess> worker_;
  static inline std::string worker_address_;
};

TEST(AdminExpiryTest, StatsSayWhatHasLeftTheDiskUnused) {
  const test::TempDir dir;
  ChildProcess cache({test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0", "--data-dir=" + dir.File("data"),
                      "--disk-ttl=1s", "--port-file=" + dir.File("cache")});
  const std::string address = absl::StrCat("127.0.0.1:", cache.WaitForPortFile(dir.File("cache")));
  ChildProcess worker({test::BinaryPath("tidepool-worker"), "--listen=127.0.0.1:0",
                       "--model=" + test::DataPath("tiny_models/llama_f32.gguf"), "--cache=" + address,
                       "--port-file=" + dir.File("worker")});
  const std::string port = absl::StrCat(worker.WaitForPortFile(dir.File("worker")));
  const ProgramResult made =
      test::RunProgram({test::BinaryPath("tidepool"), "generate", "--session=s", "--prompt=" + LongPrompt("tide"),
                        "--max-tokens=2", "--ignore-eos", "--worker=127.0.0.1:" + port});
  ASSERT_EQ(made.exit, ExitStatus::Exited(0)) << made.err;
  std::string printed;
  EXPECT_TRUE(test::Eventually([&] {
    printed = test::RunProgram({test::BinaryPath("tidepool"), "admin", "stats", "--cache=" + address}).out;
    return printed.find(" values unused on disk") != std::string::npos;
  })) << printed;
  EXPECT_THAT(printed, HasSubstr("\nexpired       ")) << printed;
}

TEST_F(AdminTest, ExplainSaysWhatAPromptWouldFindOnWhichPod) {
  const std::string worker = "--worker=" + worker_address_, prompt = "--prompt-file=" + dir_->File("prompt");
  const json found = Lines(Admin({"explain", prompt, worker, "--json"}))[0];
  ASSERT_GT(found["blocks"].size(), 2u);
  EXPECT_EQ(found["tenant"], "default");
  EXPECT_GE(found["hit_tokens"].get<int>(), 128);
  EXPECT_EQ(found["blocks"][0]["result"], "hit");
  EXPECT_THAT(found["blocks"][0]["where"].get<std::string>(), HasSubstr("pod-"));
  EXPECT_THAT(found["closest"].get<std::string>(), HasSubstr("kept"));
  // What it says is what happens.
  const json finished = Lines(Run({"generate", prompt, worker, "--max-tokens=1", "--json"})).back()["finished"];
  EXPECT_EQ(finished["usage"]["cached_prompt_tokens"], found["hit_tokens"]);

  // The model's file gives the same keys without a worker.
  const json by_file = Lines(Admin({"explain", prompt, "--model=" + Model(), "--json"}))[0];
  EXPECT_EQ(by_file["blocks"], found["blocks"]);

  const ProgramResult other = Admin({"explain", "--prompt=" + LongPrompt("sand"), worker});
  EXPECT_EQ(other.exit, ExitStatus::Exited(0)) << other.err;
  EXPECT_THAT(other.out, AllOf(HasSubstr("MISS"), HasSubstr("0 tokens come from the cache")));
}

TEST_F(AdminTest, PinsAreSpreadOverThePodsAndListed) {
  const std::vector<json> pinned = Lines(Admin({"pin", "kept", "--ttl=1h", "--json"}));
  int64_t blocks = 0;
  for (const json& pin : pinned) {
    EXPECT_EQ(pin["session_id"], "kept");
    EXPECT_GT(pin["expires_unix_ms"].get<int64_t>(), 1'700'000'000'000);
    blocks += pin["blocks"].get<int64_t>() - pin["missing_blocks"].get<int64_t>();
  }
  EXPECT_GE(blocks, 3);
  EXPECT_EQ(Lines(Admin({"pins", "--json"})).size(), pinned.size());
  EXPECT_THAT(Admin({"pins"}).out, HasSubstr("kept"));
  EXPECT_THAT(Admin({"stats"}).out, HasSubstr("pinned"));
  EXPECT_EQ(Admin({"unpin", "kept"}).exit, ExitStatus::Exited(0));
  EXPECT_TRUE(Lines(Admin({"pins", "--json"})).empty());
  EXPECT_EQ(Admin({"unpin", "kept"}).exit, ExitStatus::Exited(1));

  const std::string worker = "--worker=" + worker_address_;
  EXPECT_EQ(Admin({"pin", "--name=beginning", "--prompt-file=" + dir_->File("prompt"), worker}).exit,
            ExitStatus::Exited(0));
  EXPECT_THAT(Admin({"pins"}).out, HasSubstr("prefix beginning"));
  EXPECT_EQ(Admin({"unpin", "--name=beginning"}).exit, ExitStatus::Exited(0));
  EXPECT_EQ(Admin({"pin"}).exit, ExitStatus::Exited(2));
  EXPECT_EQ(Admin({"pin", "kept", "--ttl=1ms"}).exit, ExitStatus::Exited(2));
}

TEST_F(AdminTest, AQuotaIsSetShownAndOutlivesARestart) {
  const std::vector<json> set = Lines(Admin({"quota", "acme", "--memory-quota=8MiB", "--disk-quota=20MiB", "--json"}));
  ASSERT_EQ(set.size(), 2u);
  for (const json& pod : set) EXPECT_EQ(pod["quota"]["memory_bytes"], 8 << 20);
  EXPECT_THAT(Admin({"quota"}).out, AllOf(HasSubstr("acme"), HasSubstr("20.0 MiB"), HasSubstr("default")));
  const ProgramResult refused = Admin({"quota", "acme", "--disk-quota=100MiB"}, addresses_[0]);
  EXPECT_EQ(refused.exit, ExitStatus::Exited(1));
  EXPECT_THAT(refused.err, HasSubstr("half"));
  EXPECT_EQ(Admin({"quota", "acme", "--memory-quota=lots"}).exit, ExitStatus::Exited(2));

  // A pod of its own, since it is restarted.
  const std::string data = dir_->File("restarted"), port_file = dir_->File("restarted.port");
  std::string address;
  const auto start = [&] {
    std::remove(port_file.c_str());
    auto pod = std::make_unique<ChildProcess>(
        std::vector<std::string>{test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0", "--disk-bytes=64MiB",
                                 "--memory-bytes=8MiB", "--data-dir=" + data, "--port-file=" + port_file});
    address = absl::StrCat("127.0.0.1:", pod->WaitForPortFile(port_file));
    return pod;
  };
  std::unique_ptr<ChildProcess> pod = start();
  ASSERT_EQ(Admin({"quota", "acme", "--disk-quota=16MiB", "--pinned-quota=1MiB"}, address).exit, ExitStatus::Exited(0));
  pod->Kill();
  pod = start();
  const json after = Lines(Admin({"quota", "acme", "--json"}, address))[0];
  EXPECT_EQ(after["quota"]["disk_bytes"], 16 << 20);
  EXPECT_EQ(after["quota"]["pinned_bytes"], 1 << 20);
}

TEST_F(AdminTest, TopShowsPodsTiersTenantsStreamsAndWorkers) {
  const ProgramResult page = Admin({"top", "--once", "--interval=100ms", "--worker=" + worker_address_});
  EXPECT_EQ(page.exit, ExitStatus::Exited(0)) << page.err;
  EXPECT_THAT(page.out, AllOf(HasSubstr("pod-0"), HasSubstr("pod-1"), HasSubstr("memory"), HasSubstr("disk"),
                              HasSubstr("default"), HasSubstr("offload"), HasSubstr(worker_address_)));
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(page.out, '\n'))) EXPECT_LE(line.size(), 80u);
  const json facts = Lines(Admin({"top", "--once", "--interval=100ms", "--json"}))[0];
  EXPECT_EQ(facts["pods"].size(), 2u);
  EXPECT_GT(facts["tiers"]["memory"]["objects"].get<int>(), 0);
  EXPECT_THAT(facts["tenants"].dump(), HasSubstr("\"default\""));
  // One that is away is shown as such; nobody at all is an error.
  EXPECT_THAT(Admin({"top", "--once", "--interval=100ms"}, addresses_[0] + ",127.0.0.1:1").out, HasSubstr("DOWN"));
  EXPECT_EQ(Admin({"top", "--once", "--interval=100ms"}, "127.0.0.1:1").exit, ExitStatus::Exited(3));
  EXPECT_EQ(Admin({"top", "--interval=1ms"}).exit, ExitStatus::Exited(2));
}

TEST_F(AdminTest, AScrubReadsEverythingAndACompactionEnds) {
  const std::vector<json> progress = Lines(Admin({"scrub", "--rate=1GiB", "--json"}));
  ASSERT_GE(progress.size(), 2u);
  const json& last = progress.back();
  EXPECT_EQ(last["finished"], true);
  EXPECT_EQ(last["objects_read"], last["objects"]);
  EXPECT_EQ(last["corrupt"], 0);
  EXPECT_EQ(last["manifests_read"], 1);
  EXPECT_THAT(Admin({"scrub", "--rate=1GiB"}).out, HasSubstr("finished"));
  EXPECT_EQ(Admin({"scrub", "--rate=1KiB"}).exit, ExitStatus::Exited(2));
  EXPECT_THAT(Admin({"compact"}).out, HasSubstr("files "));
}

TEST_F(AdminTest, ConfigShowsFlagsAndChangesThoseThatCanBe) {
  EXPECT_THAT(Admin({"config"}).out, AllOf(HasSubstr("--pod-name"), HasSubstr("pod-1"), HasSubstr("changeable")));
  const std::vector<json> set = Lines(Admin({"config", "memory-bytes=32MiB", "--json"}));
  ASSERT_EQ(set.size(), 2u);
  EXPECT_EQ(set[0]["value"], "32MiB");
  EXPECT_EQ(set[0]["changed"], true);
  EXPECT_LE(Lines(Admin({"stats", "--json"}, addresses_[0]))[0]["memory"]["limit_bytes"].get<int>(), 32 << 20);
  ASSERT_EQ(Admin({"config", "memory_bytes=64MiB"}).exit, ExitStatus::Exited(0));
  EXPECT_EQ(Admin({"config", "log-level=warning"}).exit, ExitStatus::Exited(0));
  EXPECT_EQ(Admin({"config", "log-level=loud"}).exit, ExitStatus::Exited(2));
  EXPECT_EQ(Admin({"config", "memory-bytes=1"}).exit, ExitStatus::Exited(2));
  const ProgramResult fixed = Admin({"config", "data-dir=/elsewhere"});
  EXPECT_EQ(fixed.exit, ExitStatus::Exited(1));
  EXPECT_THAT(fixed.err, HasSubstr("--data-dir"));
  EXPECT_EQ(Admin({"config", "no-such-flag=1"}).exit, ExitStatus::Exited(2));
}

// --- tidepool doctor, tidepool size: the same processes.

TEST_F(AdminTest, TheDoctorFindsTheSystemInOrder) {
  const ProgramResult well =
      Run({"doctor", "--json", "--cache=" + Both(), "--worker=" + worker_address_, "--model=" + Model(),
           "--data-dir=" + dir_->File("new/data"), "--disk-bytes=16MiB", "--memory-bytes=1MiB"});
  std::vector<std::string> looked_at;
  for (const json& finding : Lines(well)) {
    EXPECT_NE(finding["grade"], "wrong") << finding;
    looked_at.push_back(finding["what"]);
  }
  using testing::Contains;
  for (const std::string& what :
       {std::string("processor"), std::string("memory"), std::string("model"), "cache " + addresses_[0] + ": health",
        "cache " + addresses_[1] + ": clock", "worker " + worker_address_ + ": model"}) {
    EXPECT_THAT(looked_at, Contains(what));
  }
}

TEST_F(AdminTest, TheDoctorSaysWhatIsWrongAndWhatToDo) {
  const auto wrong = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "doctor");
    const ProgramResult result = Run(std::move(arguments));
    EXPECT_EQ(result.exit, ExitStatus::Exited(1)) << result.out;
    EXPECT_THAT(result.out, AllOf(HasSubstr("WRONG"), HasSubstr("->")));
    return result.out;
  };
  EXPECT_THAT(wrong({"--cache=127.0.0.1:1"}), HasSubstr("cache 127.0.0.1:1: health"));
  EXPECT_THAT(wrong({"--worker=" + addresses_[0]}), HasSubstr("an address of a worker"));
  EXPECT_THAT(wrong({"--ports=" + addresses_[0]}), HasSubstr("something listens there"));
  EXPECT_THAT(wrong({"--model=" + dir_->File("prompt")}), HasSubstr("GGUF"));
  EXPECT_THAT(wrong({"--tls-cert=/nonexistent", "--tls-key=/nonexistent"}), HasSubstr("certificate"));
  EXPECT_EQ(Run({"doctor", "please"}).exit, ExitStatus::Exited(2));
}

TEST_F(AdminTest, SizeAgreesWithWhatASessionTakes) {
  const json plan = Lines(Run({"size", "--model=" + Model(), "--context=4096", "--sessions=10", "--json"}))[0];
  EXPECT_EQ(plan["blocks"], 64);
  EXPECT_EQ(plan["full_bytes"].get<int64_t>(), 4096 * plan["token_bytes"].get<int64_t>());
  const std::string text =
      Run({"size", "--model=" + Model(), "--context=4096", "--preset=snapkv", "--budget=0.2", "--recall=async"}).out;
  EXPECT_THAT(text, AllOf(HasSubstr("recall index"), HasSubstr("--device-kv-bytes="), HasSubstr("--disk-bytes=")));
  EXPECT_EQ(Run({"size", "--context=10"}).exit, ExitStatus::Exited(2));
  EXPECT_EQ(Run({"size", "--model=" + Model(), "--context=100", "--answer=100"}).exit, ExitStatus::Exited(2));
}

TEST_F(AdminTest, ProgramsWriteTheirManuals) {
  for (const char* server : {"tidepool-cache", "tidepool-worker"}) {
    const ProgramResult page = test::RunProgram({test::BinaryPath(server), "--man"});
    EXPECT_EQ(page.exit, ExitStatus::Exited(0)) << page.err;
    EXPECT_THAT(page.out, AllOf(HasSubstr(".TH TIDEPOOL-"), HasSubstr("\\-\\-listen")));
  }
  EXPECT_THAT(Run({"man", "admin"}).out, HasSubstr(".TH TIDEPOOL-ADMIN 1"));
  EXPECT_EQ(Run({"man", "everything"}).exit, ExitStatus::Exited(2));
  EXPECT_THAT(Run({"completion", "fish"}).out, HasSubstr("complete -c tidepool"));
  EXPECT_EQ(Run({"completion", "csh"}).exit, ExitStatus::Exited(2));
}

}  // namespace
}  // namespace tidepool
