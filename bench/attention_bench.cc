// Decode attention alone, at the shape of the small real model: 30 layers of 3 kv heads with 3 query heads each, over
// rows that no cache holds when their layer's turn comes. GB/s are of keys and values; what can be had says
// kernels_bench --benchmark_filter=ReadMemory.
//
// Run on a quiet machine: build/release/bin/attention_bench
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "policies/kv/packed_page.h"
#include "worker/backend/cpu/pack_rows.h"
#include "worker/backend/cpu/page_memory.h"
#include "worker/backend/cpu/step_attention.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/huge_memory.h"
#include "worker/kernels/cpu/thread_team.h"

namespace tidepool {
namespace {

constexpr int kThreads = 2, kLayers = 30, kKvHeads = 3, kHeads = 9, kHeadDim = 64;
constexpr int32_t kPages = 100000;
constexpr size_t kWeightsBytes = size_t{96} << 20;  // what a token reads besides
constexpr int kResidual = 128;                      // the last rows, which are not packed

std::vector<float> RandomNumbers(int count) {
  static std::mt19937 random(1);
  std::vector<float> x(count);
  for (float& v : x) v = std::normal_distribution<float>()(random);
  return x;
}

class Sequence {
 public:
  Sequence(PagePool& pool, PageMemory& memory) : rows_(&pool, kLayers, kKvHeads), memory_(memory) {}

  // Sequences of `count` rows. run: pages of a head that lie side by side; where the next ones lie is left to chance,
  // as it is when many sequences have come and gone.
  static void Fill(absl::Span<const std::unique_ptr<Sequence>> sequences, int count, int run) {
    struct Turn {
      Sequence* sequence;
      int head;
    };
    std::vector<Turn> turns;
    for (int first = 0; first < count; first += run * kPageSlots) {
      for (const auto& sequence : sequences) {
        for (int head = 0; head < kLayers * kKvHeads; ++head) turns.push_back({sequence.get(), head});
      }
    }
    std::shuffle(turns.begin(), turns.end(), std::mt19937(1));
    const std::vector<float> row = RandomNumbers(2 * kHeadDim);
    std::vector<uint16_t> halves(row.size());
    FloatToHalf(row.data(), static_cast<int64_t>(row.size()), halves.data());
    for (const auto& [sequence, at] : turns) {
      HeadRows& head = sequence->rows_.head(at / kKvHeads, at % kKvHeads);
      const int32_t first = head.rows();
      head.Extend(sequence->rows_.pool(), first, std::min(run * kPageSlots, count - first));
      for (const int32_t slot : head.order().subspan(first)) {
        sequence->memory_.Write(head.pages()[slot / kPageSlots].page, slot % kPageSlots,
                                reinterpret_cast<const char*>(halves.data()));
      }
    }
  }

  // So many rows leave, and new ones take their slots.
  void Replace(int count) {
    ForHeads([&](HeadRows& head) {
      for (int i = 0; i < count; ++i) {
        head.Remove(head.order()[static_cast<size_t>(i) * 7919 % head.rows()]);
        head.Add(rows_.pool(), (1 << 20) + i, RowKind::kKept);
      }
    });
  }

  // What a prompt's end does with all rows but the last.
  void PackOldRows(KvPrecision precision) {
    const std::vector<float> keys = RandomNumbers(kGroupTokens * kHeadDim),
                             values = RandomNumbers(kGroupTokens * kHeadDim);
    ForHeads([&](HeadRows& head) {
      const int32_t old = (head.rows() - kResidual) / kGroupTokens * kGroupTokens;
      head.TakeForGroups(std::vector<int32_t>(head.order().begin(), head.order().begin() + old));
      head.Renumber(rows_.pool());
      for (const int32_t page : head.AddGroups(rows_.pool(), precision)) {
        PackRows(precision, kHeadDim, keys.data(), values.data(), memory_.page(page, precision));
      }
    });
  }

  SequenceRows& rows() { return rows_; }

 private:
  template <typename Body>
  void ForHeads(const Body& body) {
    for (int i = 0; i < kLayers * kKvHeads; ++i) body(rows_.head(i / kKvHeads, i % kKvHeads));
  }

  SequenceRows rows_;
  PageMemory& memory_;
};

void BM_Attention(benchmark::State& state, KvPrecision precision) {
  const int count = static_cast<int>(state.range(0)), run = static_cast<int>(state.range(1));
  const int replaced = static_cast<int>(state.range(2)), sequences = static_cast<int>(state.range(3));
  const KvLayout layout = {.layers = kLayers, .kv_heads = kKvHeads, .head_dim = kHeadDim};
  ThreadTeam team(kThreads);
  const std::unique_ptr<PageMemory> memory = *PageMemory::Create(layout, kPages);
  PagePool pool(kPages, PageMemory::BytesOf(layout));
  std::vector<PackedPage> layouts;
  for (int i = 0; i < kKvPrecisions; ++i) layouts.emplace_back(static_cast<KvPrecision>(i), kHeadDim);
  StepAttention attention(layout, kHeads, *memory, layouts, team);

  const std::vector<int32_t> token = {0};
  std::vector<std::unique_ptr<Sequence>> all;
  std::vector<StepSlice> slices;
  int64_t bytes = 0;
  for (int i = 0; i < sequences; ++i) all.push_back(std::make_unique<Sequence>(pool, *memory));
  Sequence::Fill(all, count, run);
  for (const auto& each : all) {
    Sequence& sequence = *each;
    sequence.Replace(replaced);
    if (precision != KvPrecision::kF16) sequence.PackOldRows(precision);
    slices.push_back({.rows = &sequence.rows(), .tokens = token, .first_position = count});
    bytes += sequence.rows().total_bytes();
  }
  const std::vector<float> q = RandomNumbers(sequences * kHeads * kHeadDim);
  std::vector<float> out(q.size());
  HugeMemory memory_of_weights;
  constexpr auto kNumbers = static_cast<int64_t>(kWeightsBytes / sizeof(uint64_t));
  auto* const weights = reinterpret_cast<uint64_t*>(memory_of_weights.Take(kWeightsBytes));
  std::fill_n(weights, kNumbers, 1);
  std::vector<double> seconds;
  for (auto _ : state) {
    team.ForEachInRuns(kNumbers, 1 << 15, [&](int64_t first, int64_t last) {
      uint64_t sum = 0;
      for (int64_t i = first; i < last; ++i) sum += weights[i];
      benchmark::DoNotOptimize(sum);
    });
    const absl::Time began = absl::Now();
    attention.Begin(slices, /*hook=*/nullptr);
    for (int layer = 0; layer < kLayers; ++layer) attention.Run(layer, q.data(), out.data());
    attention.Finish();
    seconds.push_back(absl::ToDoubleSeconds(absl::Now() - began));
    state.SetIterationTime(seconds.back());
  }
  benchmark::DoNotOptimize(out.data());
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<int64_t>(seconds.size() / 2), seconds.end());
  const double median = seconds[seconds.size() / 2];
  state.counters["median_ms"] = median * 1e3;
  state.counters["GB/s"] = static_cast<double>(bytes) / median / 1e9;
}

void Args(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"rows", "run", "replaced", "sequences"})
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime()
      ->Iterations(200);
}
BENCHMARK_CAPTURE(BM_Attention, f16, KvPrecision::kF16)
    ->Apply(Args)
    ->Args({1580, 16, 0, 1})
    ->Args({1580, 1, 0, 1})
    ->Args({7900, 16, 0, 1})
    ->Args({1580, 16, 64, 1})
    ->Args({820, 16, 0, 8})
    ->Args({820, 64, 0, 8})
    ->Args({820, 1, 0, 8})
    ->Args({820, 16, 64, 8});
BENCHMARK_CAPTURE(BM_Attention, int8, KvPrecision::kInt8)->Apply(Args)->Args({1580, 16, 0, 1})->Args({820, 16, 0, 8});
BENCHMARK_CAPTURE(BM_Attention, kivi4, KvPrecision::kKivi4)->Apply(Args)->Args({1580, 16, 0, 1});
BENCHMARK_CAPTURE(BM_Attention, kivi2, KvPrecision::kKivi2)->Apply(Args)->Args({1580, 16, 0, 1});

}  // namespace
}  // namespace tidepool

BENCHMARK_MAIN();
