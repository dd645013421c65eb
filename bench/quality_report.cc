// What compression costs and what recall brings back, on the small real model (docs/quality.md has the figures):
//
//   quality_report [--texts=3] [--contexts=4] [--budget=0.2] [--preset=snapkv ...] [--row=PART_OF_A_NAME ...]
//
// Text: mean negative log-likelihood of the next 128 tokens after 1,920 tokens of a text, compressed at the end of the
// 1,920. Needles: a finished turn of 2,040 tokens is compressed; then each question alone is the next turn, and the
// true answer's tokens are scored. tests/data/quality/README.md has the data and the full cache's figures by an
// independent implementation.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/collector.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kContextTokens = 1920, kScoredTokens = 128;

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "quality_report: %s\n", message.c_str());
  std::exit(1);
}

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) Die(std::string(value.status().message()));
  return *std::move(value);
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) Die("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

struct Score {
  double nats = 0;
  int tokens = 0, first = 0;
  GenerationUsage usage;
  double seconds = 0;

  void Add(const test::Answer& answer) {
    if (!answer.result.status.ok()) Die(std::string(answer.result.status.message()));
    for (const TokenLogprob& l : answer.logprobs) {
      nats -= l.logprob;
      ++tokens;
      first += !l.top.empty() && l.top[0].first == l.token;
    }
    usage = answer.result.usage;
    seconds += answer.result.usage.total_seconds;
  }
};

struct Row {
  std::string name;
  CompressionSpec spec;
};

class Report {
 public:
  Report(Engine* engine, ManifestStore* manifests, std::string data)
      : engine_(engine), manifests_(manifests), data_(std::move(data)) {}

  Score Text(const CompressionSpec& spec, const std::string& file) {
    const std::vector<int32_t> ids = engine_->model().tokenizer().Encode(ReadAll(data_ + "/" + file), false, false);
    if (ids.size() < kContextTokens + kScoredTokens) Die(file + " is too short");
    GenerationRequest request;
    request.prompt.assign(ids.begin(), ids.begin() + kContextTokens);
    request.forced_tokens.assign(ids.begin() + kContextTokens, ids.begin() + kContextTokens + kScoredTokens);
    request.compression = spec;
    request.logprobs = 1;
    Score score;
    score.Add(test::RunRequest(*engine_, request));
    return score;
  }

  // The context is computed once; each question goes on from a copy of its session.
  void Needles(const CompressionSpec& spec, const nlohmann::json& context, int number, Score& score) {
    const Tokenizer& tokenizer = engine_->model().tokenizer();
    const std::string session = absl::StrCat("needles-", runs_++, "-", number);
    GenerationRequest first;
    first.session_id = session;
    first.prompt = tokenizer.Encode(context["context"].get<std::string>(), true, false);
    first.compression = spec;
    first.stop.max_tokens = 0;
    const test::Answer base = test::RunRequest(*engine_, first);
    if (!base.result.status.ok()) Die(std::string(base.result.status.message()));
    int copy = 0;
    for (const nlohmann::json& question : context["questions"]) {
      SessionManifest manifest = *OrDie(manifests_->Get("default", session, absl::Now() + absl::Seconds(10)));
      manifest.session_id = absl::StrCat(session, "-", copy++);
      manifest.revision = 1;
      if (absl::Status put = manifests_->Put(manifest, absl::Now() + absl::Seconds(10)); !put.ok())
        Die(std::string(put.message()));
      GenerationRequest next;
      next.session_id = manifest.session_id;
      next.compression = spec;
      next.prompt = tokenizer.Encode(question["question"].get<std::string>(), true, false);
      next.forced_tokens = tokenizer.Encode(question["answer"].get<std::string>(), false, false);
      next.logprobs = 1;
      score.Add(test::RunRequest(*engine_, next));
    }
  }

 private:
  Engine* const engine_;
  ManifestStore* const manifests_;
  const std::string data_;
  int runs_ = 0;
};

std::vector<Row> Rows(const std::vector<std::string>& presets, double budget) {
  std::vector<Row> rows = {{"full", CompressionSpec()}};
  for (const std::string& preset : presets) {
    CompressionSpec spec = OrDie(PresetSpec(preset));
    spec.budget_fraction = budget;
    spec.dense_layers_override = preset == "d2o";  // the same device budget for all
    rows.push_back({preset + ", no recall", spec});
    for (RecallMode mode : {RecallMode::kSync, RecallMode::kAsync}) {
      spec.recall.mode = mode;
      rows.push_back({preset + (mode == RecallMode::kSync ? ", sync" : ", async"), spec});
    }
  }
  CompressionSpec prototype = OrDie(PresetSpec("snapkv"));
  prototype.budget_fraction = budget / 2;
  prototype.recall.share = 0;
  prototype.recall.rows = 64;
  prototype.recall.mode = RecallMode::kSync;
  rows.push_back({absl::StrCat("snapkv ", budget * 50, " % + 64 rows, sync"), prototype});
  prototype.recall.mode = RecallMode::kAsync;
  rows.push_back({absl::StrCat("snapkv ", budget * 50, " % + 64 rows, async"), prototype});
  return rows;
}

int Main(int argc, char** argv) {
  int texts = 3, contexts = 4;
  double budget = 0.2;
  std::vector<std::string> presets, only;
  for (int i = 1; i < argc; ++i) {
    absl::string_view flag = argv[i];
    if (absl::ConsumePrefix(&flag, "--texts=")) {
      if (!absl::SimpleAtoi(flag, &texts) || texts < 0 || texts > 3) Die("--texts: 0 to 3");
    } else if (absl::ConsumePrefix(&flag, "--contexts=")) {
      if (!absl::SimpleAtoi(flag, &contexts) || contexts < 0 || contexts > 4) Die("--contexts: 0 to 4");
    } else if (absl::ConsumePrefix(&flag, "--budget=")) {
      if (!absl::SimpleAtod(flag, &budget) || !(budget > 0 && budget <= 1)) Die("--budget: above 0 and at most 1");
    } else if (absl::ConsumePrefix(&flag, "--preset=")) {
      presets.push_back(std::string(flag));
    } else if (absl::ConsumePrefix(&flag, "--row=")) {
      only.push_back(std::string(flag));
    } else {
      Die(absl::StrCat("unknown argument ", argv[i], "; known: --texts --contexts --budget --preset --row"));
    }
  }
  if (presets.empty()) presets = {"streaming", "snapkv", "h2o", "d2o"};

  const char* dir = std::getenv("TIDEPOOL_MODEL_DIR");
  auto model = OrDie(Model::Load(std::string(dir != nullptr ? dir : TIDEPOOL_SOURCE_DIR "/models") +
                                 "/SmolLM2-135M-Instruct.Q4_1.gguf"));
  const std::string work = (std::filesystem::temp_directory_path() / "tidepool-quality-XXXXXX").string();
  std::string made = work;
  if (mkdtemp(made.data()) == nullptr) Die("cannot make " + work);
  CacheOptions cache_options;
  cache_options.data_dir = made;
  cache_options.memory_bytes = size_t{1} << 30;
  {
    auto cache = OrDie(EmbeddedCache::Open(cache_options, LayoutOf(*model, KvType::kF16)));
    EngineOptions options;
    auto engine = OrDie(Engine::Create(options, model, cache.get(), cache->manifests()));
    Report report(engine.get(), cache->manifests(), TIDEPOOL_SOURCE_DIR "/tests/data/quality");
    const char* files[] = {"gpl-3.txt", "lgpl-2.1.txt", "python-argparse.txt"};
    const nlohmann::json needles =
        nlohmann::json::parse(ReadAll(TIDEPOOL_SOURCE_DIR "/tests/data/quality/needles.json"));

    std::printf("| %-28s | %7s %7s %7s | %8s | %7s %6s | %7s %9s |\n", "", "gpl-3", "lgpl", "python", "loss", "needles",
                "first", "KV %", "rows/step");
    double full = 0;
    for (const Row& row : Rows(presets, budget)) {
      const bool wanted = std::any_of(only.begin(), only.end(),
                                      [&](const std::string& part) { return absl::StrContains(row.name, part); });
      if (!only.empty() && !wanted && row.name != "full") continue;
      double sum = 0;
      std::string columns;
      GenerationUsage usage;
      for (int t = 0; t < texts; ++t) {
        const Score score = report.Text(row.spec, files[t]);
        sum += score.nats / score.tokens;
        columns += absl::StrCat(" ", std::to_string(score.nats / score.tokens).substr(0, 6), " ");
        usage = score.usage;
      }
      if (row.name == "full") full = sum;
      Score needle;
      for (int c = 0; c < contexts; ++c) report.Needles(row.spec, needles[c], c, needle);
      if (texts == 0) usage = needle.usage;
      std::printf(
          "| %-28s | %s | %+8.4f | %7.3f %6.3f | %7.1f %9.1f |\n", row.name.c_str(), columns.c_str(),
          texts > 0 ? (sum - full) / texts : 0.0, contexts > 0 ? needle.nats / needle.tokens : 0.0,
          contexts > 0 ? static_cast<double>(needle.first) / needle.tokens : 0.0,
          100.0 * static_cast<double>(usage.resident_kv_bytes) / static_cast<double>(usage.full_kv_bytes),
          static_cast<double>(usage.recalled_rows) / static_cast<double>(std::max<int64_t>(1, usage.generated_tokens)));
      std::fflush(stdout);
    }
  }
  std::filesystem::remove_all(made);
  return 0;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) { return tidepool::Main(argc, argv); }
