// What compression costs and what recall brings back (docs/quality.md has the figures). Deterministic but for
// asynchronous recall, offline; the engine and its cache run in this process.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "bench/quality/lookup.h"
#include "bench/quality/mass.h"
#include "bench/quality/needles.h"
#include "bench/quality/or_die.h"
#include "bench/quality/report.h"
#include "bench/quality/texts.h"

namespace tidepool::quality {
namespace {

constexpr char kUsage[] = R"(quality_report [options]

  --suites=LIST           lookup, text, divergence, needles, mass; default all. mass: how much attention the rows that
                          each index chooses receive; of the full cache, so nothing but --model, --texts and --threads
                          concerns it
  --presets=LIST          NAME, or NAME:drop, which drops what the preset would merge; default: every
                          preset that evicts
  --budgets=LIST          shares of the full cache's rows; default 0.2,0.1,0.05
  --recall=LIST           off, sync, async, the last two also as MODE:INDEX or MODE:INDEX:SHORTLIST with INDEX one of k4,
                          pq16x4, pq8x8, exact, page8, page16; default off,sync,async
  --recall-rows=N         so many recall slots for each (layer, kv head) beyond the budget, instead of half of it
  --recall-options=LIST   NAME=NUMBER of recall's own: ema_margin, max_rows_per_step, budget_ms, staging, follow_rows,
                          interval, turn, min_share, promote_after, or trigger=cosine, scope=layer, scope=filter; default:
                          the engine's
  --index=PLACE           host, device or fit: where the recall index lies; fit: on the device, in its budget, where that
                          has room for it, else in host memory; default host
  --kv-precision=LIST     f16, int8, kivi4, kivi2: of the rows that stay, but the newest 128; default f16. With another
                          one, --presets may name full: nothing is evicted, all is packed
  --only=TEXT             settings whose name ("snapkv 0.2 sync") holds the text
  --lookup-lengths=LIST   of 500,1000,2000,4000,7900; default all
  --model=FILE            of the other suites; default models/SmolLM2-135M-Instruct.Q4_1.gguf
  --lengths=LIST          their tokens; default 2048
  --texts=N               the first so many of three texts; default 3
  --tasks=LIST            needles: single, multi, kv, tracking; default multi
  --contexts=N            needles: so many contexts of each task, at most 4 of the stored ones; default 4
  --questions=LIST        needles: unknown or visible when the context is compressed; default unknown
  --pace-ms=N             lookup: rest after each token of an answer with asynchronous recall; default 5
  --threads=N             of the engine; default 2
  --json=FILE             all cells, as JSON
)";

const std::vector<std::string> kSuites = {"lookup", "text", "divergence", "needles", "mass"};

struct Options {
  Grid grid;
  std::vector<std::string> suites = kSuites;
  std::vector<int> lookup_lengths;
  std::string model = ModelFile("SmolLM2-135M-Instruct.Q4_1.gguf");
  std::vector<int> lengths = {2048};
  int texts = 3, contexts = 4;
  std::vector<std::string> tasks = {"multi"}, questions = {"unknown"};
  int pace_ms = 5;
  int threads = 2;
  std::string json;

  bool Wants(const std::string& suite) const {
    for (const std::string& wanted : suites) {
      if (wanted == suite) return true;
    }
    return false;
  }
};

std::vector<int> Numbers(const char* flag, absl::string_view list) {
  std::vector<int> numbers;
  for (absl::string_view item : absl::StrSplit(list, ',')) {
    if (!absl::SimpleAtoi(item, &numbers.emplace_back()) || numbers.back() < 1) {
      Die(absl::StrCat(flag, ": '", item, "' is not a number above 0"));
    }
  }
  return numbers;
}

std::vector<std::string> Words(const char* flag, absl::string_view list, const std::vector<std::string>& known) {
  std::vector<std::string> words = absl::StrSplit(list, ',');
  for (const std::string& word : words) {
    if (std::find(known.begin(), known.end(), word) == known.end()) {
      Die(absl::StrCat(flag, ": '", word, "' is not one of ", absl::StrJoin(known, ", ")));
    }
  }
  return words;
}

std::vector<double> Shares(const char* flag, absl::string_view list) {
  std::vector<double> shares;
  for (absl::string_view item : absl::StrSplit(list, ',')) {
    if (!absl::SimpleAtod(item, &shares.emplace_back()) || !(shares.back() > 0 && shares.back() <= 1)) {
      Die(absl::StrCat(flag, ": '", item, "' is not above 0 and at most 1"));
    }
  }
  return shares;
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    absl::string_view flag = argv[i];
    if (flag == "--help") {
      std::printf("%s", kUsage);
      std::exit(0);
    }
    if (absl::ConsumePrefix(&flag, "--suites=")) {
      options.suites = Words("--suites", flag, kSuites);
    } else if (absl::ConsumePrefix(&flag, "--presets=")) {
      options.grid.presets = absl::StrSplit(flag, ',');
    } else if (absl::ConsumePrefix(&flag, "--budgets=")) {
      options.grid.budgets = Shares("--budgets", flag);
    } else if (absl::ConsumePrefix(&flag, "--recall=")) {
      options.grid.recalls = absl::StrSplit(flag, ',');
    } else if (absl::ConsumePrefix(&flag, "--model=")) {
      options.model = std::string(flag);
    } else if (absl::ConsumePrefix(&flag, "--lengths=")) {
      options.lengths = Numbers("--lengths", flag);
    } else if (absl::ConsumePrefix(&flag, "--texts=")) {
      options.texts = std::min(Numbers("--texts", flag)[0], 3);
    } else if (absl::ConsumePrefix(&flag, "--contexts=")) {
      options.contexts = Numbers("--contexts", flag)[0];
    } else if (absl::ConsumePrefix(&flag, "--tasks=")) {
      options.tasks = Words("--tasks", flag, {"single", "multi", "kv", "tracking"});
    } else if (absl::ConsumePrefix(&flag, "--questions=")) {
      options.questions = Words("--questions", flag, {"unknown", "visible"});
    } else if (absl::ConsumePrefix(&flag, "--recall-options=")) {
      options.grid.recall_options = absl::StrSplit(flag, ',');
    } else if (absl::ConsumePrefix(&flag, "--recall-rows=")) {
      options.grid.recall_rows = Numbers("--recall-rows", flag)[0];
    } else if (absl::ConsumePrefix(&flag, "--index=")) {
      const std::string place = Words("--index", flag, {"host", "device", "fit"})[0];
      options.grid.index_at = place == "host" ? IndexAt::kHost : place == "device" ? IndexAt::kDevice : IndexAt::kFit;
    } else if (absl::ConsumePrefix(&flag, "--kv-precision=")) {
      options.grid.precisions = absl::StrSplit(flag, ',');
    } else if (absl::ConsumePrefix(&flag, "--only=")) {
      options.grid.only = std::string(flag);
    } else if (absl::ConsumePrefix(&flag, "--lookup-lengths=")) {
      options.lookup_lengths = Numbers("--lookup-lengths", flag);
    } else if (absl::ConsumePrefix(&flag, "--pace-ms=")) {
      if (!absl::SimpleAtoi(flag, &options.pace_ms) || options.pace_ms < 0) Die("--pace-ms: at least 0");
    } else if (absl::ConsumePrefix(&flag, "--threads=")) {
      options.threads = Numbers("--threads", flag)[0];
    } else if (absl::ConsumePrefix(&flag, "--json=")) {
      options.json = std::string(flag);
    } else {
      Die(absl::StrCat("unknown argument ", argv[i], "\n\n", kUsage));
    }
  }
  return options;
}

void RunLookup(const Options& options, const std::vector<Setting>& settings, Report& report) {
  BenchEngine engine(ModelFile("lookup.gguf"), options.threads);
  for (const LookupCase& lookup : ReadLookupCases(TIDEPOOL_SOURCE_DIR "/tests/data/lookup_model/cases.json")) {
    const int length = static_cast<int>(lookup.context.size());
    const std::vector<int>& lengths = options.lookup_lengths;
    if (!lengths.empty() && std::find(lengths.begin(), lengths.end(), length) == lengths.end()) continue;
    for (const Setting& setting : settings) {
      const int pace_ms = setting.spec.recall.mode == RecallMode::kAsync ? options.pace_ms : 0;
      report.Add(MeasureLookup(engine, lookup, engine.Placed(setting, length), absl::Milliseconds(pace_ms)));
    }
  }
}

constexpr int kTurnTokens = 160;  // contexts are shorter than a suite's length by no more
const std::string kData = TIDEPOOL_SOURCE_DIR "/tests/data/quality/";

std::vector<std::string> TextFiles(const Options& options) {
  std::vector<std::string> files = {kData + "gpl-3.txt", kData + "lgpl-2.1.txt", kData + "python-argparse.txt"};
  files.resize(options.texts);
  return files;
}

void RunTexts(BenchEngine& engine, const Options& options, const std::vector<Setting>& settings, Report& report) {
  TextSuite suite(&engine, TextFiles(options), options.Wants("divergence"));
  for (int length : options.lengths) {
    for (const Setting& setting : settings) {
      for (const Cell& cell : suite.Measure(engine.Placed(setting, length - kTurnTokens), length)) report.Add(cell);
    }
  }
}

// The stored contexts of 2,040 tokens are those that an independent implementation has measured.
std::vector<NeedleTask> Tasks(const Options& options, const std::string& kind, int length, const Tokenizer& tokenizer) {
  if (kind == "multi" && length == 2048) {
    std::vector<NeedleTask> tasks = ReadNeedleTasks(kData + "needles.json");
    if (static_cast<int>(tasks.size()) > options.contexts) tasks.resize(options.contexts);
    return tasks;
  }
  std::vector<std::string> haystack = Paragraphs(ReadAll(kData + "gpl-3.txt"));
  const std::vector<std::string> more = Paragraphs(ReadAll(kData + "lgpl-2.1.txt"));
  haystack.insert(haystack.end(), more.begin(), more.end());
  return MakeNeedleTasks(kind, length - 8, options.contexts, haystack, tokenizer);
}

void RunNeedles(BenchEngine& engine, const Options& options, const std::vector<Setting>& settings, Report& report) {
  for (int length : options.lengths) {
    for (const std::string& kind : options.tasks) {
      const std::vector<NeedleTask> tasks = Tasks(options, kind, length, engine.tokenizer());
      for (const std::string& question : options.questions) {
        for (const Setting& setting : settings) {
          Cell cell =
              MeasureNeedles(engine, tasks, question == "visible", engine.Placed(setting, length - kTurnTokens));
          cell.suite = absl::StrCat(kind, "-", question);
          cell.length = length;
          report.Add(cell);
        }
      }
    }
  }
}

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const std::vector<Setting> settings = OrDie(Settings(options.grid));
  Report report(options.json);
  if (options.Wants("lookup")) RunLookup(options, settings, report);
  if (options.Wants("mass")) {
    for (const Cell& cell : MeasureMass(options.model, TextFiles(options), options.threads)) report.Add(cell);
  }
  const bool texts = options.Wants("text") || options.Wants("divergence");
  if (!texts && !options.Wants("needles")) return 0;
  BenchEngine engine(options.model, options.threads);
  if (texts) RunTexts(engine, options, settings, report);
  if (options.Wants("needles")) RunNeedles(engine, options, settings, report);
  return 0;
}

}  // namespace
}  // namespace tidepool::quality

int main(int argc, char** argv) { return tidepool::quality::Main(argc, argv); }
