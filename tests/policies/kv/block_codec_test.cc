#include "policies/kv/block_codec.h"

#include <cstring>
#include <string>

#include "absl/strings/escaping.h"
#include "base/checksum.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tidepool {
namespace {

using ::testing::HasSubstr;

KvLayout Layout(KvType type = KvType::kF16) {
  KvLayout layout;
  layout.model_fingerprint = "model";
  layout.layers = 4;
  layout.kv_heads = 3;
  layout.head_dim = 8;
  layout.type = type;
  return layout;
}

char RowByte(int kv_head, int token, size_t i) { return static_cast<char>(kv_head * 101 + token * 7 + i); }

std::string Block(const KvLayout& layout, int layer, int32_t first_position, int tokens) {
  BlockBuilder builder(layout, layer, first_position, tokens);
  for (int token = tokens - 1; token >= 0; --token) {  // any order
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      char* row = builder.MutableRow(kv_head, token);
      for (size_t i = 0; i < layout.row_bytes(); ++i) row[i] = RowByte(kv_head, token, i);
    }
  }
  return std::move(builder).Finish();
}

TEST(BlockCodecTest, EveryFieldAndRowComesBack) {
  for (KvType type : {KvType::kF16, KvType::kF32}) {
    for (int tokens : {1, 37, 64}) {
      const KvLayout layout = Layout(type);
      const std::string value = Block(layout, 3, 640, tokens);
      EXPECT_EQ(value.size(), BlockValueBytes(layout, tokens));
      const absl::StatusOr<BlockView> view = BlockView::Parse(value);
      ASSERT_TRUE(view.ok()) << view.status();
      EXPECT_EQ(view->layer(), 3);
      EXPECT_EQ(view->kv_heads(), 3);
      EXPECT_EQ(view->head_dim(), 8);
      EXPECT_EQ(view->tokens(), tokens);
      EXPECT_EQ(view->first_position(), 640);
      EXPECT_EQ(view->type(), type);
      EXPECT_EQ(view->row_bytes(), layout.row_bytes());
      EXPECT_TRUE(view->VerifyRows().ok());
      EXPECT_TRUE(view->CheckLayout(layout).ok());
      for (int kv_head = 0; kv_head < 3; ++kv_head) {
        for (int token = 0; token < tokens; ++token) {
          const std::string_view row = view->Row(kv_head, token);
          ASSERT_EQ(row.size(), layout.row_bytes());
          for (size_t i = 0; i < row.size(); ++i) ASSERT_EQ(row[i], RowByte(kv_head, token, i));
        }
      }
    }
  }
}

// The bytes of version 1, for ever: a stored block must be readable by every later program.
TEST(BlockCodecTest, TheFormatIsTheGoldenBytes) {
  KvLayout layout = Layout(KvType::kF32);
  layout.kv_heads = 1;
  layout.head_dim = 1;
  BlockBuilder builder(layout, 2, 128, 2);
  const float rows[2][2] = {{1.0f, -2.0f}, {0.5f, 4.0f}};
  for (int token = 0; token < 2; ++token) std::memcpy(builder.MutableRow(0, token), rows[token], sizeof rows[token]);
  EXPECT_EQ(absl::BytesToHexString(std::move(builder).Finish()),
            "5450423102000200010001000200000080000000c86663d923375d34d7ef4d0f0000803f000000c00000003f00008040");
}

TEST(BlockCodecTest, AnyChangedByteIsDetected) {
  const std::string good = Block(Layout(), 1, 64, 5);
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      const absl::StatusOr<BlockView> view = BlockView::Parse(bad);
      const absl::Status status = view.ok() ? view->VerifyRows() : view.status();
      ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << "byte " << at << " bit " << bit;
    }
  }
}

TEST(BlockCodecTest, AnyOtherLengthIsDetected) {
  const std::string good = Block(Layout(), 1, 64, 5);
  for (size_t size = 0; size < good.size(); ++size) {
    ASSERT_EQ(BlockView::Parse(good.substr(0, size)).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  EXPECT_EQ(BlockView::Parse(good + '\0').status().code(), absl::StatusCode::kDataLoss);
}

// With a checksum that is right: a program that writes them is wrong, or hostile.
TEST(BlockCodecTest, HeadersThatCannotBeAreRefusedByWhatIsWrong) {
  struct {
    size_t offset;
    char byte;
    const char* message;
  } const cases[] = {
      {0, 'X', "magic"},          {4, 0, "element type"}, {4, 3, "element type"},     {5, 1, "reserved"},
      {14, 1, "reserved"},        {15, 1, "reserved"},    {8, 0, "kv_heads"},         {10, 0, "head_dim"},
      {12, 0, "tokens"},          {12, 65, "tokens"},     {12, 4, "its header says"}, {8, 2, "its header says"},
      {10, 9, "its header says"}, {13, 1, "tokens"},      {11, 1, "its header says"},
  };
  for (const auto& c : cases) {
    std::string bad = Block(Layout(), 1, 64, 5);
    bad[c.offset] = c.byte;
    const uint32_t checksum = Checksum32(bad.substr(0, 20) + bad.substr(kBlockHeaderBytes, 3 * 5 * sizeof(uint32_t)));
    std::memcpy(bad.data() + 20, &checksum, sizeof checksum);
    const absl::Status status = BlockView::Parse(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message)) << "byte " << c.offset;
  }
}

TEST(BlockCodecTest, ADamagedRowIsNamed) {
  std::string value = Block(Layout(), 1, 64, 5);
  const size_t row = 2 * 5 + 3;  // kv head 2, token 3
  value[kBlockHeaderBytes + 3 * 5 * sizeof(uint32_t) + row * Layout().row_bytes()] ^= 1;
  const absl::StatusOr<BlockView> view = BlockView::Parse(value);
  ASSERT_TRUE(view.ok());
  EXPECT_THAT(std::string(view->VerifyRows().message()), HasSubstr("kv head 2, token 3"));
}

TEST(BlockCodecTest, TheHeaderChecksumAloneIsNotLookedAtByParseUnverified) {
  std::string value = Block(Layout(), 1, 64, 5);
  value[20] ^= 1;
  EXPECT_EQ(BlockView::Parse(value).status().code(), absl::StatusCode::kDataLoss);
  const absl::StatusOr<BlockView> view = BlockView::ParseUnverified(value);
  ASSERT_TRUE(view.ok());
  EXPECT_TRUE(view->VerifyRows().ok());
  EXPECT_EQ(BlockView::ParseUnverified(value + '\0').status().code(), absl::StatusCode::kDataLoss);
}

TEST(BlockCodecTest, AnotherLayoutIsRefusedByFieldName) {
  const std::string value = Block(Layout(), 3, 0, 2);
  const BlockView view = BlockView::Parse(value).value();
  struct {
    const char* field;
    void (*change)(KvLayout&);
  } const cases[] = {
      {"layer", [](KvLayout& l) { l.layers = 3; }},
      {"kv_heads", [](KvLayout& l) { l.kv_heads = 4; }},
      {"head_dim", [](KvLayout& l) { l.head_dim = 16; }},
      {"type", [](KvLayout& l) { l.type = KvType::kF32; }},
  };
  for (const auto& c : cases) {
    KvLayout layout = Layout();
    c.change(layout);
    const absl::Status status = view.CheckLayout(layout);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
  }
}

}  // namespace
}  // namespace tidepool
