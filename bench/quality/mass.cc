#include "bench/quality/mass.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/quality/or_die.h"
#include "bench/quality/setting.h"
#include "policies/recall/select_rows.h"
#include "policies/retain/token_scores.h"
#include "worker/kv/block_log.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/row_recall.h"
#include "worker/model/model.h"

namespace tidepool::quality {
namespace {

constexpr int kFirstLayer = 2;  // those before it are dense by recall.md section 5
// Protected rows are "sinks, recent" in recall.md section 4, without numbers: the first rows that every preset keeps,
// and the newest block, so that all rows that may be chosen are in the index.
constexpr int kSinkTokens = 4, kRecentTokens = kBlockTokens;
constexpr int kPrefixQueries = 32;  // of `static`; product codes learn by as many
constexpr int kChunkTokens = 256;

// One sequence with all its rows on the device, and a recall for each index that takes only the protected ones to be
// there.
class MassMeter : public StepHook {
 public:
  MassMeter(Backend* backend, int query_heads)
      : backend_(backend),
        layout_(backend->layout()),
        group_(query_heads / layout_.kv_heads),
        rows_(&backend->pool(), layout_.layers, layout_.kv_heads),
        protected_(&backend->pool(), layout_.layers, layout_.kv_heads),
        log_(layout_, {}, nullptr),
        ring_(layout_.layers, kPrefixQueries, query_heads * layout_.head_dim),
        heads_(static_cast<size_t>(layout_.layers - kFirstLayer) * layout_.kv_heads) {
    for (const auto& [name, kind] : kRecallIndexes) {
      RecallSpec spec;
      spec.mode = RecallMode::kSync;
      spec.index = kind;
      spec.shortlist = 0;
      recalls_.push_back(std::make_unique<RowRecall>(layout_, group_, spec));
      recalls_.back()->set_slots(kMassRows.back());
    }
    for (Head& head : heads_) head.captured.resize(recalls_.size() + 2);
    log_.set_on_full([this](int32_t block, int layer, int kv_head, const char* rows) {
      for (auto& recall : recalls_) recall->AddBlock(block, layer, kv_head, rows, reading_prefix_);
    });
  }

  void ReadPrefix(absl::Span<const int32_t> tokens) {
    for (size_t done = 0; done < tokens.size(); done += kChunkTokens) {
      Compute(tokens.subspan(done, kChunkTokens));
      Log(tokens.subspan(done, kChunkTokens));
    }
    reading_prefix_ = false;
    for (auto& recall : recalls_) recall->Learn(*backend_, ring_);
    ForEachHead([this](int layer, int kv_head, Head& head) {
      head.by_prefix = Attention(layer, kv_head, ring_.tokens(layer));
    });
    protected_.Extend(0, kSinkTokens);
    protected_.Extend(log_.tokens() - kRecentTokens, kRecentTokens);
  }

  // The next token, and what of its attention would be captured.
  void Step(int32_t token) {
    const int32_t position = log_.tokens();
    Compute({&token, 1});
    protected_.Extend(position, 1);
    ForEachHead([&](int layer, int kv_head, Head& head) {
      HeadRows& resident = protected_.head(layer, kv_head);
      resident.Remove(resident.Find(position - kRecentTokens));
      Measure(layer, kv_head, position, head);
    });
    Log({&token, 1});
  }

  std::vector<CapturedMass> Result() const {
    std::vector<CapturedMass> result;
    for (const auto& [name, kind] : kRecallIndexes) result.push_back({std::string(name)});
    for (const char* other : {"static", "oracle"}) result.push_back({other});
    double all = 0;
    for (const Head& head : heads_) all += head.all;
    for (size_t s = 0; s < result.size(); ++s) {
      for (size_t b = 0; b < kMassRows.size(); ++b) {
        for (const Head& head : heads_) result[s].share[b] += head.captured[s][b] / all;
      }
    }
    return result;
  }

 private:
  struct Head {
    std::vector<float> by_prefix;  // by position: `static`
    // Attention that rows which may be chosen have received; and the part captured, by selection.
    double all = 0;
    std::vector<std::array<double, kMassRows.size()>> captured;
  };

  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override {
    for (int token = queries[0].first; token < step_tokens_; ++token) {
      ring_.Push(layer, queries[0].Head(token, 0, layout_.head_dim));
    }
  }
  bool ActsInStep() const override { return false; }
  int QueriesRead(int /*slice*/) const override { return kPrefixQueries; }

  void ForEachHead(absl::FunctionRef<void(int layer, int kv_head, Head& head)> body) {
    backend_->ParallelFor(static_cast<int64_t>(heads_.size()), [&](int64_t i) {
      body(kFirstLayer + static_cast<int>(i) / layout_.kv_heads, static_cast<int>(i) % layout_.kv_heads, heads_[i]);
    });
  }

  void Compute(absl::Span<const int32_t> tokens) {
    step_tokens_ = static_cast<int>(tokens.size());
    StepSlice slice;
    slice.rows = &rows_;
    slice.tokens = tokens;
    slice.first_position = log_.tokens();
    rows_.Extend(slice.first_position, step_tokens_);
    backend_->Step({&slice, 1}, this);
  }

  void Log(absl::Span<const int32_t> tokens) {
    while (!tokens.empty()) {
      const auto part = tokens.subspan(0, log_.room_in_tail());
      log_.Append(part, /*exact=*/true, [&](int layer, int kv_head, char* out) {
        const absl::Span<const int32_t> order = rows_.head(layer, kv_head).order();
        backend_->ReadRows(rows_, layer, kv_head, order.subspan(log_.tokens(), part.size()), out);
      });
      tokens.remove_prefix(part.size());
    }
  }

  // By position: the attention of the last `count` tokens' queries, mean over them and over the group.
  std::vector<float> Attention(int layer, int kv_head, int count) const {
    const int32_t rows = rows_.head(layer, kv_head).rows();
    std::vector<const float*> queries;
    std::vector<int32_t> visible;
    for (int back = count - 1; back >= 0; --back) {
      for (const float* query : Queries(layer, kv_head, back)) queries.push_back(query);
      visible.resize(queries.size(), rows - back);
    }
    std::vector<float> probabilities(queries.size() * rows);
    backend_->Probabilities(rows_, layer, kv_head, queries, visible, probabilities.data());
    return ReduceGroup(probabilities, static_cast<int>(queries.size()), GroupReduce::kMean);
  }

  // Of the group, for the token so many before the newest.
  std::vector<const float*> Queries(int layer, int kv_head, int back) const {
    const float* token = ring_.Token(layer, ring_.tokens(layer) - 1 - back);
    std::vector<const float*> queries;
    for (int g = 0; g < group_; ++g) {
      queries.push_back(token + (static_cast<size_t>(kv_head) * group_ + g) * layout_.head_dim);
    }
    return queries;
  }

  void Measure(int layer, int kv_head, int32_t position, Head& head) {
    std::vector<float> attention = Attention(layer, kv_head, 1);
    attention.resize(position);
    head.by_prefix.resize(position, 0.0f);
    RowScores scores;
    std::vector<std::vector<int32_t>> chosen;
    for (auto& recall : recalls_) {
      recall->Score(protected_, log_, layer, kv_head, Queries(layer, kv_head, 0), position, /*waits=*/true, scores);
      chosen.push_back(recall->Choose(layer, kv_head, scores, /*exact=*/true).wanted);
    }
    chosen.push_back(BestRows({head.by_prefix, scores.state}, kMassRows.back()));
    chosen.push_back(BestRows({attention, scores.state}, kMassRows.back()));
    for (int32_t i = 0; i < position; ++i) head.all += scores.state[i] == RecallState::kOut ? 0.0f : attention[i];
    for (size_t s = 0; s < chosen.size(); ++s) {
      double mass = 0;
      size_t taken = 0;
      for (size_t b = 0; b < kMassRows.size(); ++b) {
        const size_t end = std::min(chosen[s].size(), static_cast<size_t>(kMassRows[b]));
        for (; taken < end; ++taken) mass += attention[chosen[s][taken]];
        head.captured[s][b] += mass;
      }
    }
  }

  Backend* const backend_;
  const KvLayout layout_;
  const int group_;
  SequenceRows rows_;       // all that were computed
  SequenceRows protected_;  // what recall takes to be resident; holds positions only
  BlockLog log_;
  QueryRing ring_;
  std::vector<std::unique_ptr<RowRecall>> recalls_;  // by kRecallIndexes
  std::vector<Head> heads_;                          // of the layers from kFirstLayer on
  int step_tokens_ = 0;
  bool reading_prefix_ = true;
};

}  // namespace

std::vector<CapturedMass> CaptureMass(Backend& backend, int query_heads, absl::Span<const int32_t> tokens,
                                      const MassPlan& plan) {
  MassMeter meter(&backend, query_heads);
  meter.ReadPrefix(tokens.subspan(0, plan.prefix_tokens));
  for (int step = 0; step < plan.steps; ++step) meter.Step(tokens[plan.prefix_tokens + step]);
  return meter.Result();
}

std::vector<Cell> MeasureMass(const std::string& model_path, const std::vector<std::string>& files, int threads) {
  const absl::Time begin = absl::Now();
  const std::shared_ptr<const Model> model = OrDie(Model::Load(model_path));
  const std::unique_ptr<Backend> backend = OrDie(CreateCpuBackend(model, {.threads = threads}));
  std::vector<std::vector<CapturedMass>> of_text;
  for (const std::string& file : files) {
    const std::vector<int32_t> tokens = model->tokenizer().Encode(ReadAll(file), false, false);
    MassPlan plan;
    const int room = static_cast<int>(tokens.size()) - plan.steps;
    if (room < plan.prefix_tokens) {
      std::fprintf(stderr, "mass: %s has %zu tokens: a prefix of %d\n", file.c_str(), tokens.size(), room);
    }
    plan.prefix_tokens = std::min(plan.prefix_tokens, room);
    of_text.push_back(CaptureMass(*backend, model->config().heads, tokens, plan));
  }
  std::vector<Cell> cells;
  for (size_t s = 0; s < of_text[0].size(); ++s) {
    Cell cell;
    cell.suite = absl::StrCat("mass-", of_text[0][s].selection);
    cell.length = MassPlan().prefix_tokens + MassPlan().steps;
    cell.cost.resident = 1;
    const auto texts = static_cast<double>(of_text.size());
    cell.metrics = {{"texts", texts}};
    for (const auto& text : of_text) cell.items.push_back(text[s].share[2]);
    for (size_t b = 0; b < kMassRows.size(); ++b) {
      double mean = 0;
      for (const auto& text : of_text) mean += text[s].share[b] / texts;
      cell.metrics.emplace_back(absl::StrCat("rows", kMassRows[b]), mean);
    }
    cell.seconds = absl::ToDoubleSeconds(absl::Now() - begin);  // of all together
    cells.push_back(std::move(cell));
  }
  return cells;
}

}  // namespace tidepool::quality
