// Scores of rows where they lie, beside those of the same rows read.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "policies/kv/kv_layout.h"
#include "tests/support/paths.h"
#include "worker/backend/create_backend.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

class KeyScoresTest : public testing::TestWithParam<KvType> {};

TEST_P(KeyScoresTest, AreThoseOfTheRowsThemselves) {
  constexpr int kRows = 150, kQueries = 9;
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  BackendOptions options;
  options.kv_bytes = size_t{4} << 20;
  options.kv_type = GetParam();
  const std::unique_ptr<Backend> backend = *CreateBackend("cpu", model, options);
  const KvLayout& layout = backend->layout();
  SequenceRows rows(&backend->pool(), layout.layers, layout.kv_heads);
  HeadRows& head = rows.head(1, 0);
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 1);
  auto numbers = [&](size_t count) {
    std::vector<float> x(count);
    for (float& value : x) value = normal(random);
    return x;
  };
  for (int i = 0; i < kRows; ++i) {
    const int32_t slot = head.Add(backend->pool(), i, i % 3 == 0 ? RowKind::kRecalled : RowKind::kKept);
    const std::vector<float> row = numbers(2 * layout.head_dim);
    std::string bytes(layout.row_bytes(), '\0');
    if (layout.type == KvType::kF16) {
      FloatToHalf(row.data(), static_cast<int64_t>(row.size()), reinterpret_cast<uint16_t*>(bytes.data()));
    } else {
      std::memcpy(bytes.data(), row.data(), bytes.size());
    }
    backend->WriteRow(rows, 1, 0, slot, bytes.data());
  }
  std::vector<std::vector<float>> queries;
  std::vector<const float*> query;
  for (int q = 0; q < kQueries; ++q) {
    queries.push_back(numbers(layout.head_dim));
    query.push_back(queries.back().data());
  }
  for (const std::vector<int32_t>& slots : {std::vector<int32_t>{0, 3, 33, 34, 128, 149}, {77}, {}}) {
    std::vector<float> scores(kQueries * slots.size());
    ASSERT_TRUE(backend->KeyScores(rows, 1, 0, query, slots, scores.data()));
    std::string read(slots.size() * layout.row_bytes(), '\0');
    backend->ReadRows(rows, 1, 0, slots, read.data());
    for (size_t i = 0; i < slots.size(); ++i) {
      std::vector<float> key(layout.head_dim);
      const char* bytes = read.data() + i * layout.row_bytes();
      if (layout.type == KvType::kF16) {
        HalfToFloat(reinterpret_cast<const uint16_t*>(bytes), layout.head_dim, key.data());
      } else {
        std::memcpy(key.data(), bytes, layout.head_dim * sizeof(float));
      }
      for (int q = 0; q < kQueries; ++q) {
        double expected = 0;
        for (int c = 0; c < layout.head_dim; ++c) expected += double{query[q][c]} * key[c];
        EXPECT_NEAR(scores[q * slots.size() + i], expected, 1e-4);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, KeyScoresTest, testing::Values(KvType::kF16, KvType::kF32),
                         [](const auto& info) { return info.param == KvType::kF16 ? "f16" : "f32"; });

}  // namespace
}  // namespace tidepool
