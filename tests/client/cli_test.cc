// The command line as a user runs it: the real binaries, a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using nlohmann::json;
using test::ExitStatus;
using test::ProgramResult;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

ProgramResult Tidepool(std::vector<std::string> arguments, std::string_view input = {}) {
  arguments.insert(arguments.begin(), test::BinaryPath("tidepool"));
  return test::RunProgram(std::move(arguments), input);
}

std::vector<json> Lines(const std::string& text) {
  std::vector<json> lines;
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(text, '\n', absl::SkipEmpty()))) {
    lines.push_back(json::parse(line));
  }
  return lines;
}

std::string TinyModel() { return test::DataPath("tiny_models/llama_f32.gguf"); }

TEST(CliUsageTest, MistakesAreNamedAndExitWith2) {
  struct Case {
    std::vector<std::string> arguments;
    const char* named;
  };
  const std::vector<Case> cases = {
      {{}, "command"},
      {{"generat"}, "'generat'"},
      {{"generate", "--prompt=x", "--tempratur=1"}, "--tempratur"},
      {{"generate", "--prompt=x", "--temperature=warm"}, "--temperature"},
      {{"generate", "--prompt=x", "--max-tokens"}, "--max-tokens"},
      {{"generate", "--prompt=x", "--data-dir=y"}, "--data-dir"},  // another command's
      {{"generate", "--prompt=x", "extra"}, "'extra'"},
      {{"generate", "--prompt=x", "--prompt-file=y"}, "--prompt-file"},
      {{"generate", "--prompt-file=/nonexistent"}, "--prompt-file"},
      {{"generate", "--prompt=x", "--budget=1.5"}, "--budget"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--budget=0.2.1"}, "--budget"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--budget=-3"}, "--budget"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--budget=3parsecs"}, "--budget"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--budget=0MiB"}, "--budget"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--prefill=half"}, "--prefill"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--layer-budget=cone"}, "--layer-budget: 'cone'"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--head-budget=fair"}, "--head-budget: 'fair'"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--schedule=never"}, "--schedule: 'never'"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--fate=burn"}, "drop, merge or merge-nearest"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--kv-precision=f8"}, "--kv-precision: 'f8'"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--score-options=distance"}, "--score-options: 'distance'"},
      {{"generate", "--prompt=x", "--fate=drop"}, "--preset"},
      {{"policies", "snapkv"}, "policies"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--decode-budget=loose"}, "--decode-budget"},
      {{"generate", "--prompt=x", "--recall=maybe"}, "--recall"},
      {{"generate", "--prompt=x", "--recall=sync"}, "--preset"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=sync", "--recall-index=tree"}, "--recall-index"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=sync", "--index-placement=moon"}, "--index-placement"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=async", "--recall-trigger=luck"}, "--recall-trigger"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=sync", "--recall-scope=all"}, "--recall-scope"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=sync", "--recall-scope=filter",
        "--recall-filter-layers=2,x"},
       "--recall-filter-layers"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--recall=sync", "--shortlist=-2"}, "--shortlist"},
      {{"generate", "--prompt=x", "--preset=snapkv", "--on-recall-loss=cry"}, "--on-recall-loss"},
      {{"generate", "--prompt=x", "--stop=[1]"}, "--stop"},
      {{"generate", "--prompt=x", "--stop=["}, "--stop"},
      {{"generate", "--prompt=x", "--stop-token-ids=a"}, "--stop-token-ids"},
      {{"generate", "--prompt=x", "--logit-bias=7"}, "--logit-bias"},
      {{"generate", "--prompt=x", "--logprobs=21"}, "--logprobs"},
      {{"generate", "--prompt=\xff"}, "text"},
      {{"bench"}, "quality"},
      {{"bench", "speed"}, "'speed'"},
      {{"bench", "replay"}, "trace"},
      {{"bench", "replay", "x", "y"}, "'y'"},
      {{"bench", "replay", "x", "--sizes=1,none"}, "'none'"},
      {{"bench", "replay", "x", "--sizes", "0"}, "'0'"},
      {{"bench", "replay", "x", "--policies=lru,best"}, "'best'"},
      {{"bench", "replay", "x", "--size=1"}, "'--size'"},
      {{"bench", "replay", "x", "--json"}, "--json"},
      {{"admin"}, "stats"},
      {{"admin", "everything"}, "'everything'"},
      {{"admin", "drop"}, "ID"},
      {{"admin", "stats", "now"}, "'now'"},
      {{"inspect", "--policy=snapkv"}, "--prompt-file"},
      {{"inspect", "--prompt-file=x"}, "--policy"},
      {{"inspect", "--prompt-file=/nonexistent", "--policy=snapkv"}, "/nonexistent"},
      {{"inspect", "--prompt-file=x", "--policy=@0.1"}, "'@0.1'"},
      {{"inspect", "--prompt-file=x", "--policy=snapkv,snapkv"}, "twice"},
      {{"inspect", "--prompt-file=x", "--policy=snapkv+later"}, "'later'"},
      {{"inspect", "--prompt-file=x", "--policy=full,streaming,snapkv,h2o,tova"}, "at most 4"},
      {{"inspect", "--prompt-file=x", "--policy=snapkv", "--session=s"}, "--session"},
      {{"serve", "--model=x"}, "--data-dir"},
      {{"serve", "--data-dir=x"}, "--model"},
      {{"serve", "--data-dir=x", "--memory-bytes=lots"}, "--memory-bytes"},
      {{"serve", "--data-dir=x", "--memory-policy=best"}, "'best'"},
      {{"serve", "--data-dir=x", "--disk-ttl=10ms"}, "disk_ttl 10ms is not 0 or in 1s to 87600h"},
      {{"health", "a:1", "b:1"}, "health"},
      {{"model"}, "model info"},
      {{"help", "everything"}, "'everything'"},
      {{"version", "2"}, "'2'"},
  };
  for (const Case& c : cases) {
    const ProgramResult result = Tidepool(c.arguments);
    EXPECT_EQ(result.exit, ExitStatus::Exited(2)) << c.named << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(c.named));
    EXPECT_THAT(result.out, IsEmpty());
  }
}

TEST(CliUsageTest, HelpTellsCommandsExitCodesAndEveryFlagsDefault) {
  const ProgramResult help = Tidepool({"--help"});
  EXPECT_EQ(help.exit, ExitStatus::Exited(0));
  for (const char* part :
       {"generate", "chat", "serve", "admin", "health", "model", "bench", "version", "Exit codes: 0"}) {
    EXPECT_THAT(help.out, HasSubstr(part));
  }
  EXPECT_EQ(Tidepool({"help"}).out, help.out);
  const ProgramResult generate = Tidepool({"generate", "--help"});
  EXPECT_EQ(generate.exit, ExitStatus::Exited(0));
  for (const char* part : {"--max-tokens=128", "--preset", "--recall=off", "--worker", "Exit codes"}) {
    EXPECT_THAT(generate.out, HasSubstr(part));
  }
  EXPECT_THAT(generate.out, Not(HasSubstr("--data-dir")));
  EXPECT_EQ(Tidepool({"help", "generate"}).out, generate.out);
}

TEST(CliBenchTest, OptionsReachTheProgramBesideTheCommandLineAndItsExitCodeComesBack) {
  const ProgramResult help = Tidepool({"bench", "quality", "--help"});
  EXPECT_EQ(help.exit, ExitStatus::Exited(0)) << help.err;
  EXPECT_THAT(help.out, HasSubstr("--suites=LIST"));
  const ProgramResult refused = Tidepool({"bench", "quality", "--suites=lookup", "--budgets=2"});
  EXPECT_NE(refused.exit, ExitStatus::Exited(0));
  EXPECT_THAT(refused.err, HasSubstr("--budgets: '2'"));
  EXPECT_EQ(Tidepool({"bench", "--help"}).out, Tidepool({"help", "bench"}).out);
}

TEST(CliBenchTest, ReplayPrintsATableAndWritesItAsJson) {
  const test::TempDir directory;
  const std::string trace = directory.path() + "/trace.jsonl", file = directory.path() + "/table.json";
  std::ofstream(trace) << R"({"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1, 2]})"
                       << "\n"
                       << R"({"timestamp": 9, "input_length": 1, "output_length": 1, "hash_ids": [1, 3]})"
                       << "\n";
  const ProgramResult result =
      Tidepool({"bench", "replay", trace, "--sizes=1,10", "--policies", "lru,chain", "--json=" + file});
  ASSERT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  EXPECT_THAT(result.out, HasSubstr("2 requests, 4 block references, 3 distinct; an infinite cache hits 0.2500"));
  EXPECT_THAT(result.out, HasSubstr("        10   0.2500   0.2500\n"));
  const json table = json::parse(test::ReadFile(file));
  EXPECT_EQ(table["references"], 4);
  ASSERT_EQ(table["results"].size(), 4u);
  EXPECT_EQ(table["results"][3]["blocks"], 10);
  EXPECT_EQ(table["results"][3]["policy"], "chain");
  EXPECT_EQ(table["results"][3]["hits"], 1);
  EXPECT_THAT(Tidepool({"bench", "replay", "--help"}).out, HasSubstr("--policies"));

  std::ofstream(trace, std::ios::app) << "{}\n";
  const ProgramResult refused = Tidepool({"bench", "replay", trace});
  EXPECT_EQ(refused.exit, ExitStatus::Exited(2));
  EXPECT_THAT(refused.err, HasSubstr("line 3: timestamp is missing"));
  EXPECT_EQ(Tidepool({"bench", "replay", directory.path() + "/absent"}).exit, ExitStatus::Exited(1));
}

TEST(CliBenchTest, QualityMeasuresTheLookupModel) {
  const test::TempDir directory;
  const std::string file = directory.path() + "/cells.json";
  const ProgramResult result = Tidepool({"bench", "quality", "--suites=lookup", "--presets=streaming", "--budgets=0.2",
                                         "--recall=sync", "--lookup-lengths=500", "--json=" + file});
  ASSERT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  const json cells = json::parse(test::ReadFile(file));
  ASSERT_EQ(cells.size(), 2u);
  EXPECT_EQ(cells[0]["preset"], "full");
  EXPECT_EQ(cells[1]["preset"], "streaming");
  for (const json& cell : cells) EXPECT_EQ(cell["metrics"]["turn"], 40);
}

TEST(CliUsageTest, AServiceThatIsNotThereGives3AndItsAddress) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"generate", "--prompt=x", "--worker=127.0.0.1:1"},
                                             {"chat", "--worker=127.0.0.1:1"},
                                             {"health", "127.0.0.1:1"},
                                             {"admin", "stats", "--cache=127.0.0.1:1"},
                                             {"admin", "stats", "--worker=127.0.0.1:1"},
                                             {"admin", "sessions", "--cache=127.0.0.1:1"},
                                             {"admin", "drop", "s", "--cache=127.0.0.1:1"}}) {
    const ProgramResult result = Tidepool(arguments);
    EXPECT_EQ(result.exit, ExitStatus::Exited(3)) << arguments[0] << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr("127.0.0.1:1"));
  }
}

TEST(CliModelTest, AFileIsDescribed) {
  const ProgramResult text = Tidepool({"model", "info", TinyModel()});
  EXPECT_EQ(text.exit, ExitStatus::Exited(0));
  EXPECT_THAT(text.out, HasSubstr("272 tokens"));
  const ProgramResult result = Tidepool({"model", "info", TinyModel(), "--json"});
  const json info = json::parse(result.out);
  EXPECT_EQ(info["architecture"], "llama");
  EXPECT_EQ(info["vocabulary"], 272);
  EXPECT_EQ(info["kv_bytes_per_token"], 2 * 2 * 2 * 16 * 2);
  EXPECT_EQ(info["chat_template"], "chatml");
}

TEST(CliModelTest, AFileThatIsNoModelFails) {
  for (const std::string& file : {std::string("/nonexistent.gguf"), test::DataPath("tiny_models/README.md")}) {
    const ProgramResult result = Tidepool({"model", "info", file});
    EXPECT_EQ(result.exit, ExitStatus::Exited(1));
    EXPECT_THAT(result.err, HasSubstr(file));
  }
}

TEST(ServeTest, StartUpErrorsExitWith1AndNameTheFlag) {
  const test::TempDir dir;
  for (const std::string& file : {std::string("/nonexistent.gguf"), test::DataPath("tiny_models/README.md")}) {
    const ProgramResult result = Tidepool({"serve", "--model=" + file, "--data-dir=" + dir.File("data")});
    EXPECT_EQ(result.exit, ExitStatus::Exited(1)) << result.err;
    EXPECT_THAT(result.err, HasSubstr("--model"));
  }
  std::ofstream(dir.File("policies.json")) << R"({"policies": [{"name": "x", "compression": {"preset": "y"}}]})";
  const ProgramResult result = Tidepool(
      {"serve", "--model=" + TinyModel(), "--data-dir=" + dir.File("data"), "--policies=" + dir.File("policies.json")});
  EXPECT_EQ(result.exit, ExitStatus::Exited(2)) << result.err;
  EXPECT_THAT(result.err, HasSubstr("policies[0] 'x': compression.preset: 'y'"));
}

// A worker with its cache in one process, for the commands that need one.
class CliTest : public testing::Test {
 protected:
  void SetUp() override { Start(); }

  void Start() {
    const std::string port_file = dir_.File("port");
    std::remove(port_file.c_str());
    std::ofstream(dir_.File("policies.json")) << R"({"policies": [{"name": "light-ada", "summary": "lazy and adaptive",
        "compression": {"preset": "lighttransfer", "head_budget": "HEAD_BUDGET_ADA", "budget_fraction": 0.5,
                        "lazy_recent": 8, "window_tokens": 8}}]})";
    server_ = std::make_unique<test::ChildProcess>(
        std::vector<std::string>{test::BinaryPath("tidepool"), "serve", "--policies=" + dir_.File("policies.json"),
                                 "--model=" + TinyModel(), "--data-dir=" + dir_.File("data"), "--listen=127.0.0.1:0",
                                 "--port-file=" + port_file, "--memory-bytes=1MiB", "--disk-bytes=64MiB"});
    worker_ = "--worker=127.0.0.1:" + std::to_string(server_->WaitForPortFile(port_file));
  }

  ProgramResult Run(std::vector<std::string> arguments, std::string_view input = {}) {
    arguments.push_back(worker_);
    return Tidepool(std::move(arguments), input);
  }
  std::string Cache() const { return "--cache=" + worker_.substr(worker_.find('=') + 1); }
  json WorkerStats() { return json::parse(Run({"admin", "stats", "--json"}).out); }

  test::TempDir dir_;
  std::unique_ptr<test::ChildProcess> server_;
  std::string worker_;
};

TEST_F(CliTest, TheAnswerIsOnStdoutAndTheSummaryOnStderr) {
  const ProgramResult result = Run({"generate", "--prompt=hello", "--max-tokens=6", "--ignore-eos"});
  EXPECT_EQ(result.exit, ExitStatus::Exited(0));
  EXPECT_THAT(result.out, testing::EndsWith("\n"));
  EXPECT_THAT(result.err, HasSubstr("5 prompt tokens"));
  EXPECT_THAT(result.err, HasSubstr("6 generated"));
}

TEST_F(CliTest, JsonIsOneEventPerLineInTheOrderOfTheProtocol) {
  const ProgramResult result =
      Run({"generate", "--prompt=hello", "--max-tokens=6", "--ignore-eos", "--json", "--logprobs=2"});
  EXPECT_EQ(result.exit, ExitStatus::Exited(0));
  EXPECT_THAT(result.err, IsEmpty());
  const std::vector<json> lines = Lines(result.out);
  ASSERT_GE(lines.size(), 2u);
  std::string text;
  size_t ids = 0, logprobs = 0;
  for (size_t i = 0; i + 1 < lines.size(); ++i) {
    ASSERT_EQ(lines[i].size(), 1u);
    if (!lines[i].contains("tokens")) {
      EXPECT_TRUE(lines[i].contains("progress")) << lines[i];
      continue;
    }
    text += lines[i]["tokens"]["text"].get<std::string>();
    ids += lines[i]["tokens"]["ids"].size();
    logprobs += lines[i]["tokens"]["logprobs"].size();
  }
  EXPECT_EQ(ids, 6u);
  EXPECT_EQ(logprobs, 6u);
  const json& finished = lines.back()["finished"];
  EXPECT_EQ(finished["reason"], "FINISH_REASON_LENGTH");
  EXPECT_EQ(finished["usage"]["prompt_tokens"], 5);  // a number, not a string
  EXPECT_EQ(finished["usage"]["generated_tokens"], 6);
  EXPECT_EQ(finished["usage"]["degraded"], false);
  // People get the same text.
  EXPECT_EQ(Run({"generate", "--prompt=hello", "--max-tokens=6", "--ignore-eos"}).out,
            text.ends_with('\n') ? text : text + "\n");
}

TEST_F(CliTest, ThePromptMayComeFromAFileOrStandardInput) {
  const std::vector<std::string> rest = {"--max-tokens=6", "--ignore-eos"};
  const std::string given = Run({"generate", "--prompt=a b\nc", rest[0], rest[1]}).out;
  EXPECT_EQ(Run({"generate", rest[0], rest[1]}, "a b\nc").out, given);
  EXPECT_EQ(Run({"generate", "--prompt-file=-", rest[0], rest[1]}, "a b\nc").out, given);
  const std::string file = test::DataPath("tiny_models/README.md");
  EXPECT_EQ(Run({"generate", "--prompt-file=" + file, "--max-tokens=0"}).exit, ExitStatus::Exited(2))
      << "longer than the model's context";
}

TEST_F(CliTest, WhatTheWorkerRefusesGives2AndTheFieldsName) {
  const ProgramResult result = Run({"generate", "--prompt=x", "--temperature=99", "--json"});
  EXPECT_EQ(result.exit, ExitStatus::Exited(2));
  EXPECT_THAT(result.err, HasSubstr("temperature"));
  const std::vector<json> lines = Lines(result.out);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["error"]["code"], "INVALID_ARGUMENT");
  EXPECT_THAT(lines[0]["error"]["message"].get<std::string>(), HasSubstr("temperature"));
}

TEST_F(CliTest, ATimeoutGives1) {
  const ProgramResult result =
      Run({"generate", "--prompt=x", "--max-tokens=500", "--ignore-eos", "--timeout=1us", "--json"});
  EXPECT_EQ(result.exit, ExitStatus::Exited(1)) << result.err;
  EXPECT_EQ(Lines(result.out).back()["error"]["code"], "DEADLINE_EXCEEDED");
}

TEST_F(CliTest, StopStringsEndTheText) {
  const std::vector<std::string> ask = {"generate", "--prompt=hello there", "--max-tokens=40", "--ignore-eos",
                                        "--json"};
  std::string whole;
  for (const json& line : Lines(Run(ask).out)) {
    if (line.contains("tokens")) whole += line["tokens"]["text"].get<std::string>();
  }
  size_t at = whole.size() / 2;
  while (at < whole.size() && (whole[at] & 0x80)) ++at;
  ASSERT_LT(at, whole.size());
  const std::string stop = whole.substr(at, 1);
  std::vector<std::string> stopping = ask;
  stopping.push_back("--stop=" + json(std::vector<std::string>{"never this", stop}).dump());
  const std::vector<json> lines = Lines(Run(stopping).out);
  EXPECT_EQ(lines.back()["finished"]["reason"], "FINISH_REASON_STOP");
  EXPECT_EQ(lines.back()["finished"]["stop_string"], stop);
  std::string text;
  for (const json& line : lines) {
    if (line.contains("tokens")) text += line["tokens"]["text"].get<std::string>();
  }
  EXPECT_EQ(text, whole.substr(0, whole.find(stop)));
}

TEST_F(CliTest, ASessionGoesOnAfterARestart) {
  const auto turn = [this](const char* text) {
    return Lines(Run({"generate", "--session=s", std::string("--prompt=") + text, "--max-tokens=8", "--ignore-eos",
                      "--preset=snapkv", "--budget=0.5", "--recall=sync", "--json"})
                     .out)
        .back();
  };
  const json first = turn("the first turn of a conversation");
  ASSERT_TRUE(first.contains("finished")) << first;
  EXPECT_EQ(server_->Terminate(), ExitStatus::Exited(0));
  Start();
  const json second = turn("and the second");
  ASSERT_TRUE(second.contains("finished")) << second;
  EXPECT_GT(second["finished"]["usage"]["prompt_tokens"], first["finished"]["usage"]["context_tokens"]);
  EXPECT_EQ(second["finished"]["usage"]["degraded"], false);
}

TEST_F(CliTest, ABudgetInBytesHoldsInAPromptReadInChunks) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += "tides and pools ";
  const ProgramResult result = Run({"generate", "--prompt=" + text, "--max-tokens=8", "--ignore-eos", "--preset=h2o",
                                    "--budget=40KiB", "--prefill=chunked", "--compress-chunk=64", "--json"});
  ASSERT_EQ(result.exit.code, 0) << result.err;
  const json finished = Lines(result.out).back()["finished"];
  EXPECT_EQ(finished["usage"]["budget_bytes"], 40 << 10) << finished;
  EXPECT_EQ(finished["usage"]["budget_exceeded"], false);
  EXPECT_GT(finished["usage"]["evicted_rows"], 0);
  EXPECT_LT(finished["usage"]["decode_peak_kv_bytes"], finished["usage"]["full_kv_bytes"]);
}

TEST_F(CliTest, StagesAreChangedByFlagsAndByNamesOfTheWorkersFile) {
  const std::string prompt = "--prompt=" + std::string(300, 'x');
  auto evicted = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"generate", prompt, "--max-tokens=4", "--ignore-eos", "--json"});
    const ProgramResult result = Run(flags);
    EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
    const std::string last = result.out.substr(result.out.rfind("{\"finished\""));
    return json::parse(last)["finished"]["usage"]["evicted_rows"].get<int64_t>();
  };
  EXPECT_GT(evicted({"--preset=light-ada"}), 0);
  EXPECT_GT(evicted({"--preset=light-ada", "--budget=0.3"}), evicted({"--preset=light-ada"}));
  EXPECT_GT(evicted({"--preset=snapkv", "--score=aha", "--head-budget=ada", "--fate=merge-nearest", "--budget=0.3",
                     "--kv-precision=int8", "--residual-tokens=16"}),
            0);
  EXPECT_GT(evicted({"--preset=corm", "--score-options=queries=8,recent=16", "--budget=0.5"}), 0);
  const ProgramResult refused = Run({"generate", prompt, "--preset=d2o", "--head-budget=ada"});
  EXPECT_EQ(refused.exit, ExitStatus::Exited(2));
  EXPECT_THAT(refused.err, HasSubstr("head_budget: ada makes no sense with fate merge"));
  const ProgramResult full = Run({"generate", prompt, "--preset=full", "--score=aha"});
  EXPECT_EQ(full.exit, ExitStatus::Exited(2));
  EXPECT_THAT(full.err, HasSubstr("compression.preset: full"));

  const ProgramResult listed = Run({"policies"});
  EXPECT_THAT(listed.out, HasSubstr("light-ada            lazy and adaptive"));
  EXPECT_THAT(listed.out, HasSubstr("scores: position window column"));
  EXPECT_EQ(json::parse(Run({"policies", "--json"}).out)["policies"].back()["name"], "light-ada");
}

TEST_F(CliTest, AChatsTurnsFollowOneAnother) {
  const ProgramResult result =
      Run({"chat", "--system=be brief", "--max-tokens=5", "--ignore-eos", "--json"}, "first\n\nsecond\n");
  EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  std::vector<json> finished;
  for (const json& line : Lines(result.out)) {
    if (line.contains("finished")) finished.push_back(line["finished"]);
  }
  ASSERT_EQ(finished.size(), 2u) << "an empty line is no message";
  EXPECT_GT(finished[1]["usage"]["prompt_tokens"], finished[0]["usage"]["prompt_tokens"]);
}

TEST_F(CliTest, AChatIsASessionThatIsForgottenAtItsEnd) {
  const json before = WorkerStats();
  const ProgramResult result = Run({"chat", "--max-tokens=5", "--ignore-eos", "--json"}, "first\nsecond\n");
  EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  const json usage = Lines(result.out).back()["finished"]["usage"];
  EXPECT_GT(usage["cached_prompt_tokens"], 0) << "fewer tokens than a block: only a session has them";
  EXPECT_EQ(Tidepool({"admin", "sessions", "--json", Cache()}).out, "");
  const json after = WorkerStats();
  EXPECT_EQ(after["used_pages"], 0);
  EXPECT_GT(after["requests_finished"], before["requests_finished"]);
}

TEST_F(CliTest, AChatWithoutSessionSendsAllAgain) {
  const ProgramResult result =
      Run({"chat", "--max-tokens=5", "--ignore-eos", "--json", "--no-session"}, "first\nsecond\n");
  EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  const json usage = Lines(result.out).back()["finished"]["usage"];
  EXPECT_EQ(usage["cached_prompt_tokens"], 0);
  const ProgramResult both = Run({"chat", "--session=s", "--no-session"});
  EXPECT_EQ(both.exit, ExitStatus::Exited(2));
  EXPECT_THAT(both.err, HasSubstr("--no-session"));
}

TEST_F(CliTest, AChatThatIsTerminatedForgetsItsSession) {
  test::ChildProcess chat({test::BinaryPath("tidepool"), "chat", "--json", "--max-tokens=5", "--ignore-eos", worker_});
  chat.WriteStdin("tell me\n");
  chat.WaitForLine("finished");
  EXPECT_EQ(Lines(Tidepool({"admin", "sessions", "--json", Cache()}).out).size(), 1u);
  EXPECT_EQ(chat.Terminate(), ExitStatus::Exited(128 + SIGTERM));
  EXPECT_EQ(Tidepool({"admin", "sessions", "--json", Cache()}).out, "");
}

TEST(ChatTest, AWorkerWithoutCacheServiceIsSentTheWholeConversation) {
  const test::TempDir dir;
  test::ChildProcess worker({test::BinaryPath("tidepool-worker"), "--listen=127.0.0.1:0", "--model=" + TinyModel(),
                             "--port-file=" + dir.File("port")});
  const std::string address = "--worker=127.0.0.1:" + std::to_string(worker.WaitForPortFile(dir.File("port")));
  const ProgramResult result =
      Tidepool({"chat", "--max-tokens=5", "--ignore-eos", "--json", address}, "first\nsecond\n");
  EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
  EXPECT_THAT(result.err, IsEmpty());
  std::vector<json> finished;
  for (const json& line : Lines(result.out)) {
    if (line.contains("finished")) finished.push_back(line["finished"]);
  }
  ASSERT_EQ(finished.size(), 2u) << result.out;
  EXPECT_GT(finished[1]["usage"]["prompt_tokens"], finished[0]["usage"]["prompt_tokens"]);
}

TEST_F(CliTest, AChatsSessionIsKeptByTheWorker) {
  const auto prompt_tokens = [this](const char* line) -> int64_t {
    const ProgramResult result = Run({"chat", "--session=talk", "--max-tokens=5", "--ignore-eos", "--json"}, line);
    return Lines(result.out).back()["finished"]["usage"]["prompt_tokens"];
  };
  const int64_t first = prompt_tokens("one\n");
  EXPECT_GT(prompt_tokens("two\n"), first);
}

TEST_F(CliTest, InterruptingAChatEndsTheAnswerAndNotTheProgram) {
  test::ChildProcess chat(
      {test::BinaryPath("tidepool"), "chat", "--json", "--max-tokens=100", "--ignore-eos", worker_});
  chat.WriteStdin("tell me\n");
  chat.WaitForLine("tokens");
  chat.Signal(SIGINT);
  chat.WriteStdin("and now\n");
  chat.CloseStdin();
  EXPECT_EQ(chat.Wait(), ExitStatus::Exited(0)) << chat.Stderr();
  // The first answer was either cancelled or finished before the signal came; the second came in full.
  int ends = 0;
  for (const json& line : Lines(chat.Stdout())) ends += line.contains("finished") || line.contains("error");
  EXPECT_EQ(ends, 2);
  EXPECT_EQ(Tidepool({"admin", "sessions", "--json", Cache()}).out, "");
}

TEST_F(CliTest, StatsOfAWorkerCountWhatItDid) {
  const json before = WorkerStats();
  Run({"generate", "--prompt=hello", "--max-tokens=6", "--ignore-eos"});
  const json after = WorkerStats();
  EXPECT_EQ(after["requests_finished"].get<int>(), before["requests_finished"].get<int>() + 1);
  EXPECT_EQ(after["generated_tokens"].get<int>(), before["generated_tokens"].get<int>() + 6);
  EXPECT_EQ(after["used_pages"], 0);
  EXPECT_THAT(Run({"admin", "stats"}).out, HasSubstr("slot pages"));
}

TEST_F(CliTest, TheCacheOfServeIsAdministeredAtTheSameAddress) {
  const std::string cache = Cache();
  ASSERT_EQ(Run({"generate", "--session=mine", "--prompt=hello", "--max-tokens=3", "--ignore-eos"}).exit,
            ExitStatus::Exited(0));
  const json stats = json::parse(Tidepool({"admin", "stats", "--json", cache}).out);
  EXPECT_EQ(stats["sessions"], 1);
  EXPECT_THAT(stats["memory"]["limit_bytes"].get<int>(), testing::AllOf(testing::Gt(0), testing::Le(1 << 20)));
  EXPECT_GT(stats["disk"]["objects"], 0);
  EXPECT_EQ(stats["disk_writable"], true);
  EXPECT_THAT(Tidepool({"admin", "sessions", cache}).out, HasSubstr("mine"));
  EXPECT_EQ(json::parse(Tidepool({"admin", "session", "mine", "--json", cache}).out)["summary"]["tokens"], 8);
  EXPECT_EQ(Tidepool({"admin", "drop", "mine", cache}).exit, ExitStatus::Exited(0));
  EXPECT_EQ(json::parse(Tidepool({"admin", "stats", "--json", cache}).out)["sessions"], 0);
}

TEST_F(CliTest, HealthIsAskedOfAnyServer) {
  const std::string address = worker_.substr(worker_.find('=') + 1);
  const ProgramResult health = Tidepool({"health", address});
  EXPECT_EQ(health.exit, ExitStatus::Exited(0)) << health.err;
  EXPECT_EQ(health.out, address + " serves\n");
  // One that is not there yet is waited for.
  server_.reset();
  test::ChildProcess waits({test::BinaryPath("tidepool"), "health", "unix:" + dir_.File("socket"), "--wait=10m"});
  test::ChildProcess late(
      {test::BinaryPath("tidepool-cache"), "--listen=unix:" + dir_.File("socket"), "--data-dir=" + dir_.File("late")});
  EXPECT_EQ(waits.Wait(), ExitStatus::Exited(0)) << waits.Stderr();
}

TEST_F(CliTest, AServerThatSaysNothingIsNotHealthy) {
  const std::string address = worker_.substr(worker_.find('=') + 1);
  server_->Signal(SIGSTOP);
  EXPECT_EQ(Tidepool({"health", address, "--timeout=100ms"}).exit, ExitStatus::Exited(1));
  server_->Signal(SIGCONT);
}

// A cache service and a worker, each its own process.
TEST(AdminTest, ACacheServiceTellsItsTiersAndSessions) {
  const test::TempDir dir;
  test::ChildProcess cache({test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:0",
                            "--data-dir=" + dir.File("data"), "--port-file=" + dir.File("cache")});
  const std::string address = "--cache=127.0.0.1:" + std::to_string(cache.WaitForPortFile(dir.File("cache")));
  test::ChildProcess worker({test::BinaryPath("tidepool-worker"), "--listen=127.0.0.1:0", "--model=" + TinyModel(),
                             address, "--port-file=" + dir.File("worker")});
  const std::string worker_flag = "--worker=127.0.0.1:" + std::to_string(worker.WaitForPortFile(dir.File("worker")));

  EXPECT_EQ(json::parse(Tidepool({"admin", "stats", "--json", address}).out)["sessions"], 0);
  EXPECT_THAT(Tidepool({"admin", "sessions", "--json", address}).out, IsEmpty());
  const ProgramResult made =
      Tidepool({"generate", "--session=mine", "--prompt=hello", "--max-tokens=3", "--ignore-eos", worker_flag});
  ASSERT_EQ(made.exit, ExitStatus::Exited(0)) << made.err;

  const json stats = json::parse(Tidepool({"admin", "stats", "--json", address}).out);
  EXPECT_EQ(stats["sessions"], 1);
  for (const char* tier : {"memory", "disk"}) {
    EXPECT_TRUE(stats[tier]["bytes"].is_number());
    EXPECT_TRUE(stats[tier]["objects"].is_number());
  }
  EXPECT_GT(stats["disk"]["objects"], 0);
  const std::string text = Tidepool({"admin", "stats", address}).out;
  for (const char* part : {"memory", "disk", "recalled", "missing", "sessions      1", "to disk"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }

  EXPECT_THAT(Tidepool({"admin", "sessions", address}).out, HasSubstr("mine"));
  const json session = json::parse(Tidepool({"admin", "session", "mine", "--json", address}).out);
  EXPECT_EQ(session["summary"]["session_id"], "mine");
  EXPECT_EQ(session["summary"]["tokens"], 8);
  EXPECT_EQ(session["summary"]["revision"], 1);
  EXPECT_THAT(Tidepool({"admin", "session", "mine", "--tenant=other", address}).err, HasSubstr("mine"));

  const ProgramResult missing = Tidepool({"admin", "session", "yours", address});
  EXPECT_EQ(missing.exit, ExitStatus::Exited(1));
  EXPECT_THAT(missing.err, HasSubstr("yours"));
  EXPECT_EQ(Tidepool({"admin", "drop", "mine", address}).exit, ExitStatus::Exited(0));
  EXPECT_EQ(Tidepool({"admin", "drop", "mine", address}).exit, ExitStatus::Exited(1));
  EXPECT_EQ(json::parse(Tidepool({"admin", "stats", "--json", address}).out)["sessions"], 0);

  EXPECT_EQ(worker.Terminate(), ExitStatus::Exited(0));
  EXPECT_EQ(cache.Terminate(), ExitStatus::Exited(0));
}

}  // namespace
}  // namespace tidepool
