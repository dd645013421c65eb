#include "worker/kv/row_merger.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "worker/backend/cpu/cpu_backend.h"
#include "worker/kv/window_attention.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

std::shared_ptr<const Model> TestModel() {
  static const auto model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  return model;
}

// Does not find what is like an evicted row by itself: all rows are read.
class ReadingBackend : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;
  bool KeyCosines(const SequenceRows&, int, int, const float*, absl::Span<const int32_t>, float*) override {
    return false;
  }
};

template <typename AnyBackend>
std::unique_ptr<Backend> MakeBackend() {
  const BackendOptions options{.threads = 1, .kv_bytes = size_t{16} << 20};
  const KvLayout layout = LayoutOf(*TestModel(), KvType::kF16);
  const int32_t pages = *PagesOf(options, layout, PageMemory::BytesOf(layout)[0]);
  return std::make_unique<AnyBackend>(TestModel(), options, layout, pages, *PageMemory::Create(layout, pages));
}

// Rows of one layer, the same for every backend; merges some away, twice, and gives back what is kept.
struct Merged {
  std::vector<RowVectors> kept;
  int64_t rows = 0;
};

Merged MergeTwice(Backend& backend, int evicted) {
  const KvLayout& layout = backend.layout();
  constexpr int kRows = 60;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 1);
  SequenceRows rows(&backend.pool(), layout.layers, layout.kv_heads);
  std::string raw(layout.row_bytes(), '\0');
  std::vector<float> row(2 * layout.head_dim);
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    for (int i = 0; i < kRows; ++i) {
      for (float& x : row) x = normal(random);
      RowFromFloat(layout, row.data(), raw.data());
      const int32_t slot = rows.head(0, kv_head).Add(backend.pool(), i, RowKind::kKept);
      backend.WriteRow(rows, 0, kv_head, slot, raw.data());
    }
  }
  CompressionSpec spec;
  spec.fate = Fate::kMerge;
  RowMerger merger(layout, spec);
  Merged merged;
  for (int turn = 0; turn < 2; ++turn) {
    std::vector<std::vector<int32_t>> kept(layout.kv_heads), gone(layout.kv_heads);
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      const absl::Span<const int32_t> order = rows.head(0, kv_head).order();
      for (size_t i = 0; i < order.size(); ++i)
        (i % 7 == 3 && gone[kv_head].size() < static_cast<size_t>(evicted) ? gone : kept)[kv_head].push_back(order[i]);
    }
    merged.rows += merger.Merge(backend, rows, 0, kept, gone);
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      for (int32_t slot : gone[kv_head]) rows.head(0, kv_head).Remove(slot);
    }
  }
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    merged.kept.push_back(ReadVectors(backend, rows, 0, kv_head, rows.head(0, kv_head).order()));
  }
  return merged;
}

TEST(RowMergerTest, FindingTargetsWhereTheyLieGivesWhatReadingAllRowsGives) {
  const std::unique_ptr<Backend> finding = MakeBackend<CpuBackend>(), reading = MakeBackend<ReadingBackend>();
  for (const int evicted : {1, 3, 6}) {
    const Merged a = MergeTwice(*finding, evicted), b = MergeTwice(*reading, evicted);
    EXPECT_EQ(a.rows, b.rows);
    EXPECT_GT(a.rows, 0);
    for (size_t head = 0; head < a.kept.size(); ++head) {
      ASSERT_EQ(a.kept[head].keys.size(), b.kept[head].keys.size());
      for (size_t i = 0; i < a.kept[head].keys.size(); ++i) {
        ASSERT_NEAR(a.kept[head].keys[i], b.kept[head].keys[i], 2e-3) << "a half's last bit";
        ASSERT_NEAR(a.kept[head].values[i], b.kept[head].values[i], 2e-3);
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
