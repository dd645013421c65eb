// Copies of the rows that a step makes, beside those that are read from their pages once it is over.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "policies/kv/kv_layout.h"
#include "tests/support/paths.h"
#include "worker/backend/create_backend.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

class NewRowsTest : public testing::TestWithParam<KvType> {};

TEST_P(NewRowsTest, CopiesAreTheRowsAsTheyAreRead) {
  constexpr int32_t kSteps = 70;  // more than a page
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  BackendOptions options;
  options.kv_bytes = size_t{4} << 20;
  options.kv_type = GetParam();
  const std::unique_ptr<Backend> backend = *CreateBackend("cpu", model, options);
  ASSERT_TRUE(backend->copies_new_rows());
  const KvLayout& layout = backend->layout();
  const size_t heads = static_cast<size_t>(layout.layers) * layout.kv_heads, row_bytes = layout.row_bytes();
  const size_t stride = 3 * row_bytes;
  SequenceRows rows(&backend->pool(), layout.layers, layout.kv_heads),
      others(&backend->pool(), layout.layers, layout.kv_heads);
  for (int32_t position = 0; position < kSteps; ++position) {
    std::string copies(heads * stride, '#');
    const std::vector<int32_t> token = {(position * 31 + 7) % 64}, prompt = {5, 6, 7};
    rows.Extend(position, 1);
    others.Extend(3 * position, 3);  // a slice beside it, which wants no copies
    backend->Step({{.rows = &others, .tokens = prompt, .first_position = 3 * position},
                   {.rows = &rows,
                    .tokens = token,
                    .first_position = position,
                    .row_copies = copies.data() + row_bytes,
                    .copy_stride = stride,
                    .decodes = true}},
                  nullptr);
    for (size_t i = 0; i < heads; ++i) {
      const int layer = static_cast<int>(i) / layout.kv_heads, kv_head = static_cast<int>(i) % layout.kv_heads;
      std::string read(row_bytes, '\0');
      backend->ReadRows(rows, layer, kv_head, {rows.head(layer, kv_head).order().back()}, read.data());
      const std::string space(row_bytes, '#');
      EXPECT_EQ(copies.substr(i * stride, stride), space + read + space) << position << ", head " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, NewRowsTest, testing::Values(KvType::kF16, KvType::kF32),
                         [](const auto& info) { return info.param == KvType::kF16 ? "f16" : "f32"; });

}  // namespace
}  // namespace tidepool
