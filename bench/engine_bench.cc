// Speed of the CPU backend on the small real model (models/, scripts/fetch-models): prefill and decode at several
// depths, as tokens per second with 2 threads.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "policies/retain/compression_spec.h"
#include "worker/backend/backend.h"
#include "worker/engine/context.h"
#include "worker/engine/top_logits.h"
#include "worker/kv/batch_recall.h"
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
    for (int i = 0; i < 8448; ++i) made.text.push_back(100 + (i * 7919) % 40000);
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

// Eight prompts side by side, a share of each in every step.
void BM_PrefillTogether(benchmark::State& state) {
  constexpr int kPrompts = 8, kShare = kChunk / kPrompts;
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  const int tokens = static_cast<int>(state.range(0));
  for (auto _ : state) {
    std::vector<std::unique_ptr<SequenceRows>> all;
    for (int i = 0; i < kPrompts; ++i) {
      all.push_back(std::make_unique<SequenceRows>(&s.backend->pool(), config.layers, config.kv_heads));
    }
    for (int done = 0; done < tokens; done += kShare) {
      std::vector<StepSlice> slices;
      for (int i = 0; i < kPrompts; ++i) {
        all[i]->Extend(done, kShare);
        slices.push_back({.rows = all[i].get(),
                          .tokens = absl::MakeConstSpan(s.text).subspan(done + i, kShare),
                          .first_position = done});
      }
      s.backend->Step(slices, nullptr);
    }
  }
  state.SetItemsProcessed(state.iterations() * kPrompts * tokens);
}
BENCHMARK(BM_PrefillTogether)->Arg(1024)->Unit(benchmark::kMillisecond)->UseRealTime();

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

// Decoding over a fifth of 7,900 rows. Kept rows are moved together after an eviction; the second argument says how
// many of them have been evicted since, and their slots given to new rows; the third how many sequences decode.
void BM_DecodeKept(benchmark::State& state) {
  constexpr int kTokens = 7900, kEach = 5;
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  const int kept = static_cast<int>(state.range(0)), again = static_cast<int>(state.range(1)),
            sequences = static_cast<int>(state.range(2));
  std::vector<std::unique_ptr<SequenceRows>> all;
  for (int i = 0; i < sequences; ++i) {
    SequenceRows& rows =
        *all.emplace_back(std::make_unique<SequenceRows>(&s.backend->pool(), config.layers, config.kv_heads));
    rows.Extend(0, kept * kEach);
    for (int layer = 0; layer < config.layers; ++layer) {
      for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
        HeadRows& head = rows.head(layer, kv_head);
        for (int position = 0; position < kept * kEach; ++position) {
          if (position % kEach != layer % kEach) head.Remove(head.Find(position));
        }
        s.backend->Repack(rows, layer, kv_head);
        for (int j = 0; j < again; ++j) head.Remove(head.order()[static_cast<size_t>(j) * 7919 % head.rows()]);
      }
    }
    rows.Extend(kTokens, again);
    const std::string row(s.backend->layout().row_bytes(), 1);  // memory that nobody has written is quick to read
    for (int head = 0; head < config.layers * config.kv_heads; ++head) {
      const int layer = head / config.kv_heads, kv_head = head % config.kv_heads;
      for (int32_t slot : rows.head(layer, kv_head).order())
        s.backend->WriteRow(rows, layer, kv_head, slot, row.data());
    }
  }
  std::vector<float> logits(sequences * int64_t{config.vocabulary});
  int position = kTokens + again;
  for (auto _ : state) {
    std::vector<StepSlice> slices(sequences);
    for (int i = 0; i < sequences; ++i) {
      all[i]->Extend(position, 1);
      slices[i] = {.rows = all[i].get(),
                   .tokens = absl::MakeConstSpan(s.text).subspan(i, 1),
                   .first_position = position,
                   .logits_rows = 1,
                   .logits = logits.data() + i * int64_t{config.vocabulary}};
    }
    s.backend->Step(slices, nullptr);
    ++position;
  }
  state.SetItemsProcessed(state.iterations() * sequences);
}
BENCHMARK(BM_DecodeKept)
    ->ArgNames({"kept", "since", "sequences"})
    ->Args({16, 0, 1})
    ->Args({1580, 0, 1})
    ->Args({1580, 64, 1})
    ->Args({820, 0, 8})
    ->Args({820, 64, 8})
    ->Args({16, 0, 8})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(25)
    ->Repetitions(12);

// A step of one sequence that decodes at 1,000 tokens and of a piece of a prompt, whose first 500 tokens are in.
void BM_Mixed(benchmark::State& state) {
  constexpr int kDepth = 1000, kRead = 500;
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  const int piece = static_cast<int>(state.range(0));
  SequenceRows decoding(&s.backend->pool(), config.layers, config.kv_heads);
  SequenceRows prompt(&s.backend->pool(), config.layers, config.kv_heads);
  Prefill(decoding, 0, kDepth, nullptr);
  Prefill(prompt, 0, kRead, nullptr);
  std::vector<float> logits(config.vocabulary);
  int position = kDepth, read = kRead;
  for (auto _ : state) {
    decoding.Extend(position, 1);
    prompt.Extend(read, piece);
    const StepSlice slices[] = {
        {.rows = &decoding,
         .tokens = absl::MakeConstSpan(s.text).subspan(position, 1),
         .first_position = position,
         .logits_rows = 1,
         .logits = logits.data()},
        {.rows = &prompt, .tokens = absl::MakeConstSpan(s.text).subspan(read, piece), .first_position = read}};
    s.backend->Step(absl::MakeConstSpan(slices).first(piece > 0 ? 2 : 1), nullptr);
    ++position;
    read += piece;
  }
  state.SetItemsProcessed(state.iterations() * (piece + 1));
}
BENCHMARK(BM_Mixed)
    ->ArgName("piece")
    ->Arg(0)
    ->Arg(3)
    ->Arg(7)
    ->Arg(11)
    ->Arg(15)
    ->Arg(23)
    ->Arg(31)
    ->Arg(63)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(10)
    ->Repetitions(5);

// Decoding at 7,900 tokens with a policy and a fifth of the rows; policy_share: of the time, what the same steps over
// the same rows do not take without the policy. Each step is followed by one without it, as the machine's speed
// changes; the median of sums of some steps.
void BM_DecodePolicy(benchmark::State& state, const char* preset, KvPrecision precision) {
  constexpr int kTokens = 7900, kWarm = 32;
  constexpr int kSummed = 32;  // steps: a policy that selects now and then does so once in as many
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  ContextOptions options;
  options.spec = *PresetSpec(preset);
  options.spec.kv_precision = precision;
  options.query_heads = config.heads;
  Context context(s.backend.get(), nullptr, std::move(options));
  SequenceRows& rows = context.rows();
  BatchRecall recall(s.backend.get(), nullptr, config.heads, absl::Milliseconds(100));
  std::vector<float> logits(config.vocabulary);
  auto step = [&](int count, bool prompt) {
    context.BeginStep(count);
    const StepSlice slice = {.rows = &rows,
                             .tokens = context.StepTokens(count),
                             .first_position = context.step_position(),
                             .logits_rows = 1,
                             .logits = logits.data(),
                             .decodes = !prompt};
    recall.Begin({{&rows, &context.log(), nullptr, context.step_ring(), slice.first_position, count, prompt, nullptr,
                   prompt ? nullptr : context.step_compressor()}});
    s.backend->Step({&slice, 1}, &recall);
    recall.End();
    context.EndStep(count, prompt);
  };
  context.AddTokens(absl::MakeConstSpan(s.text).first(kTokens));
  while (context.uncomputed() > 0) step(std::min(kChunk, context.uncomputed()), true);
  context.EndPrefill();
  auto decode = [&] {
    context.AddTokens({s.text[context.computed() % s.text.size()]});
    step(1, false);
  };
  for (int i = 0; i < kWarm; ++i) decode();
  const int heads = config.layers * config.kv_heads;
  auto head = [&](int i) -> HeadRows& { return rows.head(i / config.kv_heads, i % config.kv_heads); };
  std::vector<HeadRows> saved(heads);
  // A step over the rows as they are, which are as before in the end: what it takes.
  auto decode_plainly = [&] {
    for (int i = 0; i < heads; ++i) {
      head(i).NeedFreeSlot(rows.pool());
      saved[i] = head(i);
      head(i).KeepColumnSums(0, false);
    }
    const absl::Time began = absl::Now();
    Prefill(rows, context.computed(), 1, &logits);
    const absl::Duration took = absl::Now() - began;
    for (int i = 0; i < heads; ++i) head(i) = saved[i];
    return took;
  };
  absl::Duration with, without;
  std::vector<double> shares;
  int steps = 0;
  for (auto _ : state) {
    const absl::Time began = absl::Now();
    decode();
    with += absl::Now() - began;
    state.PauseTiming();
    without += decode_plainly();
    if (++steps % kSummed == 0) {
      shares.push_back(1 - absl::FDivDuration(without, with));
      with = without = absl::ZeroDuration();
    }
    state.ResumeTiming();
  }
  std::sort(shares.begin(), shares.end());
  state.counters["rows"] = static_cast<double>(rows.total_rows()) / heads;
  state.counters["policy_share"] = shares[shares.size() / 2];
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(BM_DecodePolicy, d2o, "d2o", KvPrecision::kF16)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(288);
BENCHMARK_CAPTURE(BM_DecodePolicy, ada_snapkv, "ada-snapkv", KvPrecision::kF16)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(288);
BENCHMARK_CAPTURE(BM_DecodePolicy, ada_snapkv_int8, "ada-snapkv", KvPrecision::kInt8)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(288);

// Sequences that decode side by side at 2,048 tokens: with 820 rows of each, or all of them (`full`).
void BM_DecodePolicyBatch(benchmark::State& state, const char* preset) {
  constexpr int kTokens = 2048, kRows = 820, kSequences = 8;
  Setup& s = Shared();
  const ModelConfig& config = s.model->config();
  std::vector<std::unique_ptr<Context>> contexts;
  BatchRecall recall(s.backend.get(), nullptr, config.heads, absl::Milliseconds(100));
  std::vector<float> logits(kSequences * int64_t{config.vocabulary});
  auto step = [&](absl::Span<const std::unique_ptr<Context>> of, int count, bool prompt) {
    std::vector<StepSlice> slices;
    std::vector<RecallSlice> recalls;
    for (const std::unique_ptr<Context>& context : of) {
      context->BeginStep(count);
      slices.push_back({.rows = &context->rows(),
                        .tokens = context->StepTokens(count),
                        .first_position = context->step_position(),
                        .logits_rows = 1,
                        .logits = logits.data() + slices.size() * int64_t{config.vocabulary},
                        .decodes = !prompt});
      recalls.push_back({&context->rows(), &context->log(), nullptr, context->step_ring(), context->step_position(),
                         count, prompt, nullptr, prompt ? nullptr : context->step_compressor()});
    }
    recall.Begin(std::move(recalls));
    s.backend->Step(slices, &recall);
    recall.End();
    for (const std::unique_ptr<Context>& context : of) context->EndStep(count, prompt);
  };
  for (int i = 0; i < kSequences; ++i) {
    ContextOptions options;
    options.spec = *PresetSpec(preset);
    options.spec.budget_tokens = kRows;
    options.query_heads = config.heads;
    contexts.push_back(std::make_unique<Context>(s.backend.get(), nullptr, std::move(options)));
    Context& context = *contexts.back();
    context.AddTokens(absl::MakeConstSpan(s.text).subspan(i, kTokens));
    while (context.uncomputed() > 0) {
      step(absl::MakeConstSpan(contexts).last(1), std::min(kChunk, context.uncomputed()), true);
    }
    context.EndPrefill();
  }
  for (auto _ : state) {
    for (const std::unique_ptr<Context>& context : contexts) {
      context->AddTokens({s.text[context->computed() % s.text.size()]});
    }
    step(contexts, 1, false);
  }
  state.SetItemsProcessed(state.iterations() * kSequences);
}
BENCHMARK_CAPTURE(BM_DecodePolicyBatch, full, "full")->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(64);
BENCHMARK_CAPTURE(BM_DecodePolicyBatch, d2o, "d2o")->Unit(benchmark::kMillisecond)->UseRealTime()->Iterations(64);
BENCHMARK_CAPTURE(BM_DecodePolicyBatch, ada_snapkv, "ada-snapkv")
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->Iterations(128);

}  // namespace
}  // namespace tidepool

BENCHMARK_MAIN();
