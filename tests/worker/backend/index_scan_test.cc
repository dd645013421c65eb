// Recall by an index on the device chooses the rows that it chooses by the same index on the host. On a machine without
// a GPU its kernels run in the emulator; TIDEPOOL_TEST_DEVICE=cuda:0 names a GPU.
#include "worker/backend/index_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/paths.h"
#include "worker/backend/create_backend.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kv/row_recall.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int kGroup = 3, kSlots = 12;

// One sequence with an index for each placement, which are told the same.
class IndexScanTest : public testing::TestWithParam<RecallMode> {
 protected:
  IndexScanTest() {
    const char* name = std::getenv("TIDEPOOL_TEST_DEVICE");
    const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
    BackendOptions options;
    options.kv_bytes = size_t{4} << 20;
    backend_ = *CreateBackend(name != nullptr ? name : "emulated", model, options);
    RecallSpec spec;
    spec.mode = GetParam();
    spec.index = RecallIndex::kPq16x4;
    spec.shortlist = 16;
    const KvLayout& layout = backend_->layout();
    on_host_ = std::make_unique<RowRecall>(layout, kGroup, spec);
    spec.placement = IndexPlacement::kDevice;
    on_device_ = std::make_unique<RowRecall>(layout, kGroup, spec);
    on_host_->set_slots(kSlots);
    on_device_->set_slots(kSlots);
    log_ = std::make_unique<BlockLog>(layout, BlockLogOptions(), nullptr);
    log_->set_on_full([this](int32_t block, int layer, int head, const char* rows) {
      on_host_->AddBlock(block, layer, head, rows, prompt_);
      on_device_->AddBlock(block, layer, head, rows, prompt_);
    });
    rows_ = std::make_unique<SequenceRows>(&backend_->pool(), layout.layers, layout.kv_heads);
  }

  // Random rows; the first `kept` of them the policy keeps.
  void Append(int count, int kept, bool prompt) {
    const KvLayout& layout = backend_->layout();
    prompt_ = prompt;
    for (int layer = 0; layer < layout.layers; ++layer) {
      for (int head = 0; head < layout.kv_heads; ++head) {
        for (int i = 0; i < kept; ++i) {
          rows_->head(layer, head).Add(backend_->pool(), log_->tokens() + i, RowKind::kKept);
        }
      }
    }
    while (count > 0) {
      const int some = std::min(log_->room_in_tail(), count);
      log_->Append(std::vector<int32_t>(some, 1), prompt, [&](int layer, int head, char* out) {
        std::vector<float> row(some * layout.row_bytes() / sizeof(uint16_t));
        for (float& x : row) x = normal_(random_);
        FloatToHalf(row.data(), static_cast<int64_t>(row.size()), reinterpret_cast<uint16_t*>(out));
        written_[{layer, head}].append(out, some * layout.row_bytes());
      });
      count -= some;
    }
  }
  void Learn() {
    const std::vector<float> weight(backend_->layout().head_dim, 1.0f);
    for (int layer = 0; layer < backend_->layout().layers; ++layer) {
      for (int head = 0; head < backend_->layout().kv_heads; ++head) {
        on_host_->LearnHead(layer, head, weight);
        on_device_->LearnHead(layer, head, weight);
      }
    }
  }

  // A step of all heads of a layer: by new queries both choose the same, which is installed.
  void ExpectTheSame(int layer, bool waits, bool scans) {
    const KvLayout& layout = backend_->layout();
    const auto heads = static_cast<size_t>(layout.kv_heads);
    std::vector<float> values(heads * kGroup * layout.head_dim);
    for (float& x : values) x = 2 * normal_(random_);
    std::vector<std::vector<const float*>> queries(heads);
    std::vector<IndexScan> scan(heads);
    std::vector<RowScores> on_host(heads), on_device(heads);
    std::vector<IndexScan*> scans_of_heads;
    for (size_t head = 0; head < heads; ++head) {
      for (int g = 0; g < kGroup; ++g) {
        queries[head].push_back(values.data() + (head * kGroup + g) * layout.head_dim);
      }
      ASSERT_EQ(on_device_->PrepareScan(*rows_, *log_, layer, static_cast<int>(head), queries[head], log_->tokens(),
                                        on_device[head], scan[head]),
                scans);
      scans_of_heads.push_back(&scan[head]);
      IndexScan none;
      ASSERT_FALSE(on_host_->PrepareScan(*rows_, *log_, layer, static_cast<int>(head), queries[head], log_->tokens(),
                                         on_host[head], none));
    }
    if (!scans) return;
    backend_->ScanIndexes(scans_of_heads);
    for (size_t head = 0; head < heads; ++head) {
      const auto kv_head = static_cast<int>(head);
      ASSERT_TRUE(scan[head].done);
      on_device_->TakeScan(scan[head], waits, on_device[head]);
      on_host_->Score(*rows_, *log_, layer, kv_head, queries[head], log_->tokens(), waits, on_host[head]);
      EXPECT_NEAR(on_device[head].mass, on_host[head].mass, 1e-4);
      ASSERT_EQ(on_device[head].shortlist, on_host[head].shortlist);
      if (!waits) {
        EXPECT_NEAR(on_device[head].held, on_host[head].held, 1e-4);
        EXPECT_LE(on_device[head].worth, on_host[head].worth + 1e-4) << "of the rows found";
      }
      // A choice that could bring next to nothing compares nothing.
      EXPECT_EQ(on_host[head].shortlist.empty(), !waits && !on_host_->WorthChoosing(on_host[head]));
      for (const int32_t position : on_host[head].shortlist) {
        const char* row = written_[{layer, kv_head}].data() + position * layout.row_bytes();
        on_host_->Compare(queries[head], {on_host[head].PlaceOf(position)}, {row}, on_host[head]);
        on_device_->Compare(queries[head], {on_device[head].PlaceOf(position)}, {row}, on_device[head]);
      }
      const RowChoice expected = on_host_->Choose(layer, kv_head, on_host[head], waits),
                      got = on_device_->Choose(layer, kv_head, on_device[head], waits);
      EXPECT_EQ(got.wanted, expected.wanted);
      EXPECT_EQ(got.victims, expected.victims);
      EXPECT_EQ(got.ahead, expected.ahead);
      wanted_ += static_cast<int>(got.wanted.size());
      HeadRows& resident = rows_->head(layer, kv_head);
      size_t victim = 0;
      for (const int32_t position : got.wanted) {
        if (resident.recalled_rows() >= kSlots) resident.Remove(resident.Find(got.victims[victim++]));
        resident.Add(backend_->pool(), position, RowKind::kRecalled);
      }
    }
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<RowRecall> on_host_, on_device_;
  std::unique_ptr<BlockLog> log_;
  std::unique_ptr<SequenceRows> rows_;
  std::map<std::pair<int, int>, std::string> written_;  // rows by (layer, kv head)
  std::mt19937 random_{5};
  std::normal_distribution<float> normal_;
  bool prompt_ = true;
  int wanted_ = 0;
};

TEST_P(IndexScanTest, ChoosesTheRowsOfTheHost) {
  const bool waits = GetParam() == RecallMode::kSync;
  Append(200, 10, /*prompt=*/true);
  ExpectTheSame(0, waits, /*scans=*/false);  // nothing has been learnt yet
  Append(150, 20, /*prompt=*/true);
  Learn();
  for (int step = 0; step < 4; ++step) ExpectTheSame(step % 2, waits, true);
  Append(90, 5, /*prompt=*/false);
  for (int step = 0; step < 2; ++step) ExpectTheSame(1, waits, true);
  // Another prompt: its keys are held until it is in, and become a segment or not.
  Append(100, 5, /*prompt=*/true);
  ExpectTheSame(1, waits, true);
  Append(300, 5, /*prompt=*/true);
  Learn();
  for (int step = 0; step < 3; ++step) ExpectTheSame(1, waits, true);
  // Long enough for the memory on the device to grow.
  Append(3000, 5, /*prompt=*/true);
  Learn();
  for (int step = 0; step < 2; ++step) ExpectTheSame(step, waits, true);
  EXPECT_GT(wanted_, 100);
}

INSTANTIATE_TEST_SUITE_P(Modes, IndexScanTest, testing::Values(RecallMode::kSync, RecallMode::kAsync),
                         [](const auto& mode) { return mode.param == RecallMode::kSync ? "Sync" : "Async"; });

}  // namespace
}  // namespace tidepool
