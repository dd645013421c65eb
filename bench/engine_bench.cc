// Speed of the CPU backend on the small real model (models/, scripts/fetch-models): prefill and decode at several
// depths, as tokens per second with 2 threads.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "worker/backend/backend.h"
#include "worker/engine/top_logits.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kChunk = 256;

struct Setup {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Backend> backend;
  std::vector<int32_t> text;
};

Setup& Shared() {
  static Setup setup = [] {
    const char* dir = std::getenv("TIDEPOOL_MODEL_DIR");
    const std::string path =
        std::string(dir != nullptr ? dir : TIDEPOOL_SOURCE_DIR "/models") + "/SmolLM2-135M-Instruct.Q4_1.gguf";
    auto model = Model::Load(path);
    if (!model.ok()) {
      std::fprintf(stderr, "%s\n", std::string(model.status().message()).c_str());
      std::exit(1);
    }
    Setup made;
    made.model = *std::move(model);
    BackendOptions options;
    options.kv_bytes = size_t{2} << 30;
    made.backend = *CreateCpuBackend(made.model, options);
    for (int i = 0; i < 8192; ++i) made.text.push_back(100 + (i * 7919) % 40000);
    return made;
  }();
  return setup;
}

void Prefill(SequenceRows& rows, int first, int tokens, std::vector<float>* logits) {
  Setup& s = Shared();
  for (int done = 0; done < tokens;) {
    const int count = std::min(kChunk, tokens - done);
    rows.Extend(first + done, count);
    StepSlice slice;
    slice.rows = &rows;
    slice.tokens = absl::MakeConstSpan(s.text).subspan(first + done, count);
    slice.first_position = first + done;
    if (logits != nullptr && done + count == tokens) {
      logits->resize(s.model->config().vocabulary);
      slice.logits_rows = 1;
      slice.logits = logits->data();
    }
    s.backend->Step({&slice, 1}, nullptr);
    done += count;
  }
}

void BM_Prefill(benchmark::State& state) {
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  std::vector<float> logits;
  for (auto _ : state) {
    SequenceRows rows(&s.backend->pool(), config.layers, config.kv_heads);
    Prefill(rows, 0, static_cast<int>(state.range(0)), &logits);
  }
  if (ArgMax(logits) < 0) state.SkipWithError("the logits are no numbers");
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Prefill)->Arg(512)->Arg(2048)->Unit(benchmark::kMillisecond)->UseRealTime();

void BM_Decode(benchmark::State& state) {
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  const int depth = static_cast<int>(state.range(0));
  SequenceRows rows(&s.backend->pool(), config.layers, config.kv_heads);
  Prefill(rows, 0, depth, nullptr);
  std::vector<float> logits;
  int position = depth;
  for (auto _ : state) Prefill(rows, position++, 1, &logits);
  if (ArgMax(logits) < 0) state.SkipWithError("the logits are no numbers");
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_Decode)
    ->Arg(1)
    ->Arg(512)
    ->Arg(2048)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(48);

}  // namespace
}  // namespace tidepool

BENCHMARK_MAIN();
