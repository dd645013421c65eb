#include "worker/kv/row_merger.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <optional>
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

constexpr int kRows = 60;

// Rows of one layer, the same for every backend.
std::unique_ptr<SequenceRows> RandomRows(Backend& backend) {
  const KvLayout& layout = backend.layout();
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 1);
  auto rows = std::make_unique<SequenceRows>(&backend.pool(), layout.layers, layout.kv_heads);
  std::string raw(layout.row_bytes(), '\0');
  std::vector<float> row(2 * layout.head_dim);
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    for (int i = 0; i < kRows; ++i) {
      for (float& x : row) x = normal(random);
      RowFromFloat(layout, row.data(), raw.data());
      const int32_t slot = rows->head(0, kv_head).Add(backend.pool(), i, RowKind::kKept);
      backend.WriteRow(*rows, 0, kv_head, slot, raw.data());
    }
  }
  return rows;
}

RowMerger MakeMerger(const KvLayout& layout) {
  CompressionSpec spec;
  spec.fate = Fate::kMerge;
  return RowMerger(layout, spec);
}

// Merges some away, twice, and gives back what is kept.
struct Merged {
  std::vector<RowVectors> kept;
  int64_t rows = 0;
};

Merged MergeTwice(Backend& backend, int evicted) {
  const KvLayout& layout = backend.layout();
  const std::unique_ptr<SequenceRows> of_sequence = RandomRows(backend);
  SequenceRows& rows = *of_sequence;
  RowMerger merger = MakeMerger(layout);
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

// A few rows of each head after others, where they lie or by reading: the same rows, bit for bit.
TEST(RowMergerTest, FewRowsOfEachHeadAreMergedAsManyAre) {
  const std::unique_ptr<Backend> backend = MakeBackend<CpuBackend>();
  const KvLayout& layout = backend->layout();
  const std::unique_ptr<SequenceRows> read = RandomRows(*backend), few = RandomRows(*backend);
  RowMerger merger = MakeMerger(layout), merger_of_few = MakeMerger(layout);
  int64_t merged = 0, evicted = 0;
  for (int turn = 0; turn < 30; ++turn) {
    const size_t count = turn % 5 == 4 ? 2 : 1;
    std::vector<std::vector<int32_t>> kept(layout.kv_heads), gone(layout.kv_heads);
    std::vector<RowMerger::Likes> likes(layout.kv_heads);
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      const absl::Span<const int32_t> order = read->head(0, kv_head).order();
      const size_t first = turn * 5 % (order.size() - 1);
      for (size_t i = 0; i < order.size(); ++i) {
        (i >= first && i < first + count ? gone : kept)[kv_head].push_back(order[i]);
      }
      for (const int32_t slot : gone[kv_head]) {
        const std::optional<Backend::Alike> like = backend->MostLike(*few, 0, kv_head, slot, gone[kv_head]);
        ASSERT_TRUE(like.has_value());
        likes[kv_head].push_back({.evicted = slot, .target = like->slot, .similarity = like->cosine});
      }
      evicted += static_cast<int64_t>(count);
    }
    const int64_t now = merger.Merge(*backend, *read, 0, kept, gone);
    ASSERT_EQ(merger_of_few.MergeFew(*backend, *few, 0, likes), now);
    merged += now;
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      ASSERT_EQ(read->head(0, kv_head).merged(), few->head(0, kv_head).merged());
      for (SequenceRows* rows : {read.get(), few.get()}) rows->head(0, kv_head).RemoveAll(gone[kv_head]);
      const absl::Span<const int32_t> order = few->head(0, kv_head).order();
      std::string of_read(order.size() * layout.row_bytes(), '\0'), of_few(of_read);
      backend->ReadRows(*read, 0, kv_head, order, of_read.data());
      backend->ReadRows(*few, 0, kv_head, order, of_few.data());
      ASSERT_TRUE(of_read == of_few) << turn;
    }
  }
  EXPECT_GT(merged, 0);
  EXPECT_LT(merged, evicted);
}

}  // namespace
}  // namespace tidepool
