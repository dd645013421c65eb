// What asynchronous recall costs a (layer, kv head) that chooses anew: its evicted rows are scored by the index, rows
// are chosen, and those that are wanted are put into recall slots. Keys lean to a few directions that queries follow,
// as a model's do, so that the weights are as unlike.
//
// Run on a quiet machine: build/release/bin/recall_bench --benchmark_repetitions=3
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/kv/block_log.h"
#include "worker/kv/row_recall.h"

namespace tidepool {
namespace {

constexpr int kHeadDim = 64, kGroup = 3, kQueries = 64;

KvLayout Layout() {
  KvLayout layout;
  layout.model_fingerprint = "bench";
  layout.layers = 1;
  layout.kv_heads = 1;
  layout.head_dim = kHeadDim;
  layout.type = KvType::kF16;
  return layout;
}

// One head with `tokens` rows, of which the policy keeps a tenth and as many are in recall slots.
class Head {
 public:
  Head(RecallIndex index, int tokens)
      : tokens_(tokens), slots_(tokens / 10), pool_(1024, 256), rows_(&pool_, 1, 1), log_(Layout(), {}, nullptr) {
    RecallSpec spec;
    spec.mode = RecallMode::kAsync;
    spec.index = index;
    recall_ = std::make_unique<RowRecall>(Layout(), kGroup, spec);
    recall_->set_slots(slots_);
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0, 1);
    std::vector<std::vector<float>> topics(32, std::vector<float>(kHeadDim));
    for (std::vector<float>& topic : topics) {
      for (float& x : topic) x = normal(random);
    }
    keys_.resize(static_cast<size_t>(tokens) * kHeadDim);
    for (int t = 0; t < tokens; ++t) {
      const std::vector<float>& topic = topics[random() % topics.size()];
      for (int c = 0; c < kHeadDim; ++c) keys_[t * kHeadDim + c] = topic[c] + normal(random);
    }
    // A walk: each query is mostly the one before, as when a head chooses anew because it has turned.
    std::vector<float> query(static_cast<size_t>(kGroup) * kHeadDim);
    for (int step = 0; step < kQueries; ++step) {
      for (int g = 0; g < kGroup; ++g) {
        const std::vector<float>& topic = topics[random() % topics.size()];
        for (int c = 0; c < kHeadDim; ++c) {
          float& x = query[g * kHeadDim + c];
          x = step == 0 ? 1.5f * topic[c] : 0.98f * x + 0.06f * topic[c] + 0.15f * normal(random);
        }
      }
      queries_.push_back(query);
    }
    Fill();
    std::vector<int32_t> kept(tokens);
    for (int t = 0; t < tokens; ++t) kept[t] = t;
    std::shuffle(kept.begin(), kept.end(), random);
    kept.resize(slots_);
    std::sort(kept.begin(), kept.end());
    for (int32_t position : kept) rows_.head(0, 0).Add(pool_, position, RowKind::kKept);
    for (int step = 0; step < kQueries; ++step) Choose(step);
  }

  // Scores, chooses and installs, all wanted rows being at hand; how many were installed.
  int Choose(int step) {
    const float* query = queries_[step % kQueries].data();
    const std::vector<const float*> queries = {query, query + kHeadDim, query + 2 * kHeadDim};
    recall_->Score(rows_, log_, 0, 0, queries, tokens_, /*waits=*/false, scores_);
    const RowChoice choice = recall_->Choose(0, 0, scores_, /*exact=*/false);
    HeadRows& head = rows_.head(0, 0);
    size_t victim = 0;
    for (int32_t position : choice.wanted) {
      if (head.recalled_rows() < slots_) {
        head.Add(pool_, position, RowKind::kRecalled);
      } else {
        head.Replace(head.Find(choice.victims[victim++]), position);
      }
    }
    return static_cast<int>(choice.wanted.size());
  }

  // The share of the evicted rows' weight that recall slots hold, by their own keys, of the most that they could.
  double Held(int step) const {
    const HeadRows& head = rows_.head(0, 0);
    std::vector<double> weight(tokens_, 0.0);
    for (int g = 0; g < kGroup; ++g) {
      std::vector<double> e(tokens_, 0.0);
      double sum = 0;
      for (int t = 0; t < tokens_; ++t) {
        const int32_t slot = head.Find(t);
        if (slot >= 0 && head.kind(slot) == RowKind::kKept) continue;
        double dot = 0;
        for (int c = 0; c < kHeadDim; ++c) dot += queries_[step % kQueries][g * kHeadDim + c] * keys_[t * kHeadDim + c];
        sum += e[t] = std::exp(dot / std::sqrt(double{kHeadDim}));
      }
      for (int t = 0; t < tokens_; ++t) weight[t] += e[t] / sum / kGroup;
    }
    double held = 0, best = 0;
    for (int32_t slot : head.order()) {
      if (head.kind(slot) == RowKind::kRecalled) held += weight[head.position(slot)];
    }
    std::sort(weight.rbegin(), weight.rend());
    for (int i = 0; i < slots_; ++i) best += weight[i];
    return held / best;
  }

 private:
  void Fill() {
    log_.set_on_full([this](int32_t block, int layer, int kv_head, const char* rows) {
      recall_->AddBlock(block, layer, kv_head, rows, /*prompt=*/true);
    });
    for (int first = 0; first < tokens_;) {
      const int count = std::min(log_.room_in_tail(), tokens_ - first);
      log_.Append(std::vector<int32_t>(count, 1), true, [&](int, int, char* out) {
        for (int i = 0; i < count; ++i) {
          FloatToHalf(keys_.data() + static_cast<size_t>(first + i) * kHeadDim, kHeadDim,
                      reinterpret_cast<uint16_t*>(out + i * Layout().row_bytes()));
        }
      });
      first += count;
    }
    recall_->LearnHead(0, 0, std::vector<float>(kHeadDim, 1.0f));
  }

  const int tokens_, slots_;
  PagePool pool_;
  SequenceRows rows_;
  BlockLog log_;
  std::unique_ptr<RowRecall> recall_;
  std::vector<float> keys_;
  std::vector<std::vector<float>> queries_;  // [kGroup][kHeadDim]
  RowScores scores_;
};

void ChooseRows(benchmark::State& state, RecallIndex index) {
  Head head(index, static_cast<int>(state.range(0)));
  if (const double held = head.Held(kQueries - 1); !(held > 0.7)) {
    state.SkipWithError("slots hold too little of the attention");
    return;
  }
  int step = 0;
  int64_t installed = 0;
  for (auto _ : state) installed += head.Choose(step++);
  state.counters["rows"] = benchmark::Counter(static_cast<double>(installed), benchmark::Counter::kAvgIterations);
}

BENCHMARK_CAPTURE(ChooseRows, pq16x4, RecallIndex::kPq16x4)
    ->Arg(2048)
    ->Arg(4096)
    ->Arg(8192)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(ChooseRows, k4, RecallIndex::kK4)->Arg(4096)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace tidepool

BENCHMARK_MAIN();
