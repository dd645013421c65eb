#include "bench/quality/mass.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include "bench/quality/or_die.h"
#include "bench/quality/setting.h"
#include "tests/support/paths.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/model/model.h"

namespace tidepool::quality {
namespace {

constexpr int kPrefix = 300, kSteps = 40;  // both end within a block, and a block is filled between them
constexpr int kLayer = 2;                  // the only one that is measured of three

using Shares = std::array<double, kMassRows.size()>;

// The queries of one layer, all tokens computed in one step.
struct Queries : StepHook {
  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override {
    if (layer != kLayer) return;
    for (int token = 0; token < kPrefix + kSteps; ++token) {
      const float* of_token = queries[0].Head(token, 0, 16);
      tokens.emplace_back(of_token, of_token + 64);
    }
  }
  std::vector<std::vector<float>> tokens;  // [4 heads * 16] each
};

// The same in double precision, from the definitions: rows 4 to position - 64 may be chosen.
class Reference {
 public:
  Reference(Backend& backend, const std::vector<int32_t>& tokens) {
    SequenceRows rows(&backend.pool(), 3, 2);
    rows.Extend(0, kPrefix + kSteps);
    StepSlice slice;
    slice.rows = &rows;
    slice.tokens = tokens;
    backend.Step({&slice, 1}, &queries_);
    for (int kv_head = 0; kv_head < 2; ++kv_head) {
      std::vector<uint16_t> halves((kPrefix + kSteps) * 32);
      backend.ReadRows(rows, kLayer, kv_head, rows.head(kLayer, kv_head).order(),
                       reinterpret_cast<char*>(halves.data()));
      keys_[kv_head].resize(halves.size());
      HalfToFloat(halves.data(), static_cast<int64_t>(halves.size()), keys_[kv_head].data());
    }
    double all = 0;
    for (int kv_head = 0; kv_head < 2; ++kv_head) {
      std::vector<double> by_prefix(kPrefix + kSteps, 0.0);
      for (int position = kPrefix - 32; position < kPrefix; ++position) {
        const std::vector<double> attention = Attention(kv_head, position, 0, position + 1);
        for (int i = 0; i <= position; ++i) by_prefix[i] += attention[i];
      }
      for (int position = kPrefix; position < kPrefix + kSteps; ++position) {
        const int end = position - 63;
        const std::vector<double> attention = Attention(kv_head, position, 0, position + 1);
        all += std::accumulate(attention.begin() + 4, attention.begin() + end, 0.0);
        Capture(by_prefix, attention, end, mass["static"]);
        Capture(attention, attention, end, mass["oracle"]);
        Capture(Attention(kv_head, position, 4, end), attention, end, mass["exact"]);
      }
    }
    for (auto& [name, shares] : mass) {
      for (double& share : shares) share /= all;
    }
  }

  std::map<std::string, Shares> mass;

 private:
  // Softmax over the rows from `first` to `end` for both heads of the group, their mean.
  std::vector<double> Attention(int kv_head, int position, int first, int end) {
    std::vector<double> mean(end, 0.0);
    for (int head = 2 * kv_head; head < 2 * kv_head + 2; ++head) {
      std::vector<double> e(end, 0.0);
      for (int i = first; i < end; ++i) {
        double dot = 0;
        for (int c = 0; c < 16; ++c)
          dot += double{queries_.tokens[position][head * 16 + c]} * keys_[kv_head][i * 32 + c];
        e[i] = std::exp(dot / 4);
      }
      const double sum = std::accumulate(e.begin(), e.end(), 0.0);
      for (int i = first; i < end; ++i) mean[i] += e[i] / sum / 2;
    }
    return mean;
  }

  static void Capture(const std::vector<double>& by, const std::vector<double>& attention, int end, Shares& shares) {
    std::vector<int> order(end - 4);
    std::iota(order.begin(), order.end(), 4);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return by[a] > by[b]; });
    for (size_t b = 0; b < kMassRows.size(); ++b) {
      for (int i = 0; i < std::min(kMassRows[b], end - 4); ++i) shares[b] += attention[order[i]];
    }
  }

  Queries queries_;
  std::vector<float> keys_[2];  // [token][K 16, V 16]
};

TEST(MassTest, CapturedMassIsThatOfTheDefinitionAndNoIndexBeatsTheOracle) {
  const std::shared_ptr<const Model> model = OrDie(Model::Load(test::DataPath("tiny_models/llama_f16.gguf")));
  const std::unique_ptr<Backend> backend = OrDie(CreateCpuBackend(model, {.kv_bytes = size_t{16} << 20}));
  std::mt19937 random(5);
  std::vector<int32_t> tokens(kPrefix + kSteps);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 256);

  std::map<std::string, Shares> mass;
  for (const CapturedMass& captured : CaptureMass(*backend, 4, tokens, {kPrefix, kSteps})) {
    mass[captured.selection] = captured.share;
  }
  ASSERT_EQ(mass.size(), std::size(kRecallIndexes) + 2);
  for (const auto& [name, expected] : Reference(*backend, tokens).mass) {
    for (size_t b = 0; b < kMassRows.size(); ++b) EXPECT_NEAR(mass[name][b], expected[b], 1e-4) << name << " " << b;
  }
  for (const auto& [name, shares] : mass) {
    EXPECT_TRUE(std::is_sorted(shares.begin(), shares.end())) << name;
    for (size_t b = 0; b < kMassRows.size(); ++b) EXPECT_LE(shares[b], mass["oracle"][b] + 1e-6) << name << " " << b;
    EXPECT_NEAR(shares.back(), 1, 1e-6) << name << ": there are fewer than 512 rows";
  }
  // What tells the selections apart; 64 of some 250 rows.
  EXPECT_GT(mass["k4"][0], mass["exact"][0] - 0.02);
  for (const char* coarse : {"static", "page8", "page16"}) EXPECT_LT(mass[coarse][0], mass["k4"][0] - 0.05) << coarse;
  for (const char* codes : {"pq16x4", "pq8x8"}) EXPECT_GT(mass[codes][0], mass["page16"][0] + 0.05) << codes;
}

}  // namespace
}  // namespace tidepool::quality
