// Which rows are recalled where kv heads, or layers, choose together (RecallSpec::select_scope): with a policy that
// keeps the same rows everywhere, the same ones.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/engine/context_step.h"
#include "worker/engine/context.h"
#include "worker/engine/engine.h"
#include "worker/kv/batch_recall.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

class RecallScopeTest : public testing::Test {
 protected:
  RecallScopeTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    const KvLayout layout = LayoutOf(*model_, KvType::kF16);
    layers_ = layout.layers;
    heads_ = layout.kv_heads;
    cache_ = *EmbeddedCache::Open(options, layout);
    backend_ = *CreateCpuBackend(model_, {.threads = 2, .kv_bytes = size_t{16} << 20});
  }

  static CompressionSpec Spec(SelectScope scope, RecallMode mode = RecallMode::kSync) {
    CompressionSpec spec = *PresetSpec("streaming");
    spec.budget_fraction = 0.2;
    spec.recall.mode = mode;
    spec.recall.rows = 8;
    spec.recall.select_scope = scope;
    if (scope == SelectScope::kFilter) spec.recall.filter_layers = {1};
    return spec;
  }

  // A prompt has been read; decodes.
  class Sequence {
   public:
    Sequence(RecallScopeTest& test, const CompressionSpec& spec)
        : test_(test),
          recall_(test.backend_.get(), test.cache_.get(), test.model_->config().heads, absl::Seconds(10)),
          context_(test.backend_.get(), test.cache_.get(),
                   {.spec = spec, .nonce = "n", .query_heads = test.model_->config().heads}) {
      Step(300, /*prompt=*/true);
      context_.EndPrefill();
    }
    void Decode() { Step(1, /*prompt=*/false); }
    // Positions that the last step attended to.
    std::vector<int32_t> Recalled(int layer, int kv_head) {
      const HeadRows& rows = context_.rows().head(layer, kv_head);
      std::vector<int32_t> positions;
      for (const int32_t slot : rows.order()) {
        if (rows.kind(slot) == RowKind::kRecalled) positions.push_back(rows.position(slot));
      }
      return positions;
    }

   private:
    void Step(int32_t count, bool prompt) {
      std::vector<int32_t> tokens(count);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % test_.model_->config().vocabulary);
      context_.AddTokens(tokens);
      test::ComputeStep(*test_.backend_, recall_, context_, count, prompt);
      context_.EndStep(count, prompt);
    }

    RecallScopeTest& test_;
    std::mt19937 random_{1};
    BatchRecall recall_;
    Context context_;
  };

  test::TempDir dir_;
  const std::shared_ptr<const Model> model_ = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  int layers_ = 0, heads_ = 0;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(RecallScopeTest, HeadsOfALayerBringTheSameRowsWhereTheyChooseTogether) {
  ASSERT_GE(heads_, 2);
  for (const SelectScope scope : {SelectScope::kHead, SelectScope::kLayer}) {
    Sequence sequence(*this, Spec(scope));
    int different = 0;
    for (int step = 0; step < 20; ++step) {
      sequence.Decode();
      for (int layer = 0; layer < layers_; ++layer) {
        const std::vector<int32_t> first = sequence.Recalled(layer, 0);
        ASSERT_EQ(first.size(), 8u);
        for (int head = 1; head < heads_; ++head) different += sequence.Recalled(layer, head) != first;
      }
    }
    EXPECT_EQ(different > 0, scope == SelectScope::kHead);
  }
}

TEST_F(RecallScopeTest, LayersAboveAFilterLayerBringWhatItChose) {
  ASSERT_GE(layers_, 3);
  for (const RecallIndex index : {RecallIndex::kK4, RecallIndex::kPq16x4}) {
    CompressionSpec spec = Spec(SelectScope::kFilter);
    spec.recall.index = index;
    Sequence sequence(*this, spec);
    int own = 0, different = 0;
    for (int step = 0; step < 20; ++step) {
      sequence.Decode();
      const std::vector<int32_t> filter = sequence.Recalled(1, 0);
      for (int head = 0; head < heads_; ++head) {
        own += sequence.Recalled(0, head) != filter;
        for (int layer = 1; layer < layers_; ++layer) different += sequence.Recalled(layer, head) != filter;
      }
    }
    EXPECT_EQ(different, 0);
    EXPECT_GT(own, 0);
  }
}

TEST_F(RecallScopeTest, StepsThatWaitForNothingRecallToo) {
  for (const SelectScope scope : {SelectScope::kLayer, SelectScope::kFilter}) {
    for (const RecallIndex index : {RecallIndex::kK4, RecallIndex::kPq16x4}) {
      CompressionSpec spec = Spec(scope, RecallMode::kAsync);
      spec.recall.index = index;
      spec.recall.turn = 0;
      Sequence sequence(*this, spec);
      EXPECT_TRUE(test::Eventually([&] {
        sequence.Decode();
        for (int layer = 0; layer < layers_; ++layer) EXPECT_LE(sequence.Recalled(layer, 0).size(), 8u);
        return !sequence.Recalled(layers_ - 1, 0).empty();
      }));
    }
  }
}

}  // namespace
}  // namespace tidepool
