// Any bytes as a stored block: refused with DataLoss, or every row it claims lies within the value.
#include <cstring>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/checksum.h"
#include "base/limits.h"
#include "policies/kv/block_codec.h"
#include "tests/fuzz/fuzz_target.h"

namespace tidepool {
namespace {

KvLayout Layout(int kv_heads, int head_dim, KvType type) {
  KvLayout layout;
  layout.layers = 4;
  layout.kv_heads = kv_heads;
  layout.head_dim = head_dim;
  layout.type = type;
  return layout;
}

std::string Block(const KvLayout& layout, int tokens) {
  BlockBuilder builder(layout, 1, 64, tokens);
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    for (int token = 0; token < tokens; ++token) builder.MutableRow(kv_head, token)[0] = static_cast<char>(token + 1);
  }
  return std::move(builder).Finish();
}

void CheckView(const BlockView& view, std::string_view value) {
  TIDEPOOL_CHECK(view.tokens() >= 1 && view.tokens() <= kBlockTokens);
  const char* expected = value.data() + value.size() - view.row_bytes() * view.kv_heads() * view.tokens();
  for (int kv_head = 0; kv_head < view.kv_heads(); ++kv_head) {
    for (int token = 0; token < view.tokens(); ++token) {
      const std::string_view row = view.Row(kv_head, token);
      TIDEPOOL_CHECK(row.data() == expected && row.size() == view.row_bytes());
      expected += row.size();
    }
  }
  TIDEPOOL_CHECK(expected == value.data() + value.size());
  const KvLayout layout = Layout(view.kv_heads(), view.head_dim(), view.type());
  TIDEPOOL_CHECK(view.CheckLayout(layout).ok() == (view.layer() < layout.layers));
  const absl::Status rows = view.VerifyRows();
  TIDEPOOL_CHECK(rows.ok() || rows.code() == absl::StatusCode::kDataLoss);
}

void CheckValue(std::string_view value) {
  const absl::StatusOr<BlockView> view = BlockView::Parse(value);
  if (view.ok()) {
    CheckView(*view, value);
  } else {
    TIDEPOOL_CHECK(view.status().code() == absl::StatusCode::kDataLoss);
  }
}

// The value with a header checksum that is right, so that mutations get past it.
std::string WithChecksum(std::string value) {
  uint16_t kv_heads, tokens;
  std::memcpy(&kv_heads, value.data() + 8, sizeof kv_heads);
  std::memcpy(&tokens, value.data() + 12, sizeof tokens);
  const size_t table = sizeof(uint32_t) * kv_heads * tokens;
  const std::string covered = value.substr(0, 20) + value.substr(kBlockHeaderBytes, table);
  const uint32_t checksum = Checksum32(covered);
  std::memcpy(value.data() + 20, &checksum, sizeof checksum);
  return value;
}

}  // namespace

void RunInput(std::string_view value) {
  CheckValue(value);
  if (value.size() >= kBlockHeaderBytes) CheckValue(WithChecksum(std::string(value)));
}

namespace test {

std::vector<std::string> FuzzSeeds() {
  return {Block(Layout(1, 2, KvType::kF16), 1), Block(Layout(3, 4, KvType::kF16), 5),
          Block(Layout(2, 3, KvType::kF32), 64), std::string("TPB1")};
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
