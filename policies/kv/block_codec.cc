#include "policies/kv/block_codec.h"

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checksum.h"
#include "base/limits.h"

namespace tidepool {
namespace {

// Fields are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[4] = {'T', 'P', 'B', '1'};
constexpr size_t kChecksumOffset = 20;

template <typename T>
void Put(std::string& value, size_t offset, T field) {
  std::memcpy(value.data() + offset, &field, sizeof field);
}

template <typename T>
T Get(std::string_view value, size_t offset) {
  T field;
  std::memcpy(&field, value.data() + offset, sizeof field);
  return field;
}

// Of the header's fields and the row checksum table.
uint32_t HeaderChecksum(std::string_view value, size_t rows) {
  std::string covered(value.substr(0, kChecksumOffset));
  covered.append(value.substr(kBlockHeaderBytes, rows * sizeof(uint32_t)));
  return Checksum32(covered);
}

}  // namespace

size_t BlockValueBytes(const KvLayout& layout, int tokens) {
  return kBlockHeaderBytes + static_cast<size_t>(layout.kv_heads) * tokens * (sizeof(uint32_t) + layout.row_bytes());
}

const char* RowsInBlock(const KvLayout& layout, int tokens, const char* value, int kv_head) {
  const size_t rows = static_cast<size_t>(layout.kv_heads) * tokens, before = static_cast<size_t>(kv_head) * tokens;
  return value + kBlockHeaderBytes + rows * sizeof(uint32_t) + before * layout.row_bytes();
}

BlockBuilder::BlockBuilder(const KvLayout& layout, int layer, int32_t first_position, int tokens)
    : layout_(layout), tokens_(tokens), value_(BlockValueBytes(layout, tokens), '\0') {
  TIDEPOOL_CHECK(tokens >= 1 && tokens <= kBlockTokens);
  constexpr int kMost = std::numeric_limits<uint16_t>::max();
  TIDEPOOL_CHECK(layer >= 0 && layer <= kMost);
  TIDEPOOL_CHECK(layout.kv_heads >= 1 && layout.kv_heads <= kMost);
  TIDEPOOL_CHECK(layout.head_dim >= 1 && layout.head_dim <= kMost);
  std::memcpy(value_.data(), kMagic, sizeof kMagic);
  Put<uint8_t>(value_, 4, static_cast<uint8_t>(layout.type));
  Put<uint16_t>(value_, 6, static_cast<uint16_t>(layer));
  Put<uint16_t>(value_, 8, static_cast<uint16_t>(layout.kv_heads));
  Put<uint16_t>(value_, 10, static_cast<uint16_t>(layout.head_dim));
  Put<uint16_t>(value_, 12, static_cast<uint16_t>(tokens));
  Put<int32_t>(value_, 16, first_position);
}

char* BlockBuilder::MutableRow(int kv_head, int token) {
  TIDEPOOL_CHECK(kv_head >= 0 && kv_head < layout_.kv_heads && token >= 0 && token < tokens_);
  const auto first = RowsInBlock(layout_, tokens_, value_.data(), kv_head) - value_.data();
  return value_.data() + first + token * layout_.row_bytes();
}

std::string BlockBuilder::Finish() && {
  const size_t rows = static_cast<size_t>(layout_.kv_heads) * tokens_;
  const char* first = value_.data() + kBlockHeaderBytes + rows * sizeof(uint32_t);
  for (size_t row = 0; row < rows; ++row) {
    Put<uint32_t>(value_, kBlockHeaderBytes + row * sizeof(uint32_t),
                  Checksum32(first + row * layout_.row_bytes(), layout_.row_bytes()));
  }
  Put<uint32_t>(value_, kChecksumOffset, HeaderChecksum(value_, rows));
  return std::move(value_);
}

absl::StatusOr<BlockView> BlockView::Parse(std::string_view value) {
  absl::StatusOr<BlockView> view = ParseUnverified(value);
  if (!view.ok()) return view;
  const size_t rows = static_cast<size_t>(view->kv_heads_) * view->tokens_;
  if (Get<uint32_t>(value, kChecksumOffset) != HeaderChecksum(value, rows)) {
    return absl::DataLossError("block value: header checksum differs");
  }
  return view;
}

absl::StatusOr<BlockView> BlockView::ParseUnverified(std::string_view value) {
  auto bad = [](auto&&... parts) { return absl::DataLossError(absl::StrCat("block value: ", parts...)); };
  if (value.size() < kBlockHeaderBytes) return bad(value.size(), " bytes are too few for a header");
  if (std::memcmp(value.data(), kMagic, sizeof kMagic) != 0) return bad("magic is not TPB1");
  BlockView view;
  const uint8_t type = Get<uint8_t>(value, 4);
  if (type != static_cast<uint8_t>(KvType::kF16) && type != static_cast<uint8_t>(KvType::kF32)) {
    return bad("unknown element type ", int{type});
  }
  view.value_ = value;
  view.type_ = static_cast<KvType>(type);
  view.layer_ = Get<uint16_t>(value, 6);
  view.kv_heads_ = Get<uint16_t>(value, 8);
  view.head_dim_ = Get<uint16_t>(value, 10);
  view.tokens_ = Get<uint16_t>(value, 12);
  view.first_position_ = Get<int32_t>(value, 16);
  if (Get<uint8_t>(value, 5) != 0 || Get<uint16_t>(value, 14) != 0) return bad("reserved bytes are not 0");
  if (view.tokens_ < 1 || view.tokens_ > kBlockTokens)
    return bad("tokens ", view.tokens_, " is not in 1 to ", kBlockTokens);
  if (view.kv_heads_ < 1 || view.head_dim_ < 1)
    return bad("kv_heads ", view.kv_heads_, " or head_dim ", view.head_dim_, " is 0");
  const size_t rows = static_cast<size_t>(view.kv_heads_) * view.tokens_;
  const size_t expected = kBlockHeaderBytes + rows * (sizeof(uint32_t) + view.row_bytes());
  if (value.size() != expected) return bad(value.size(), " bytes, its header says ", expected);
  return view;
}

absl::Status BlockView::VerifyRows() const {
  for (int kv_head = 0; kv_head < kv_heads_; ++kv_head) {
    for (int token = 0; token < tokens_; ++token) {
      if (Checksum32(Row(kv_head, token)) != RowChecksum(kv_head, token)) {
        return absl::DataLossError(
            absl::StrCat("block value: checksum of row (kv head ", kv_head, ", token ", token, ") differs"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BlockView::CheckLayout(const KvLayout& layout) const {
  auto differ = [](const char* field, auto here, auto there) {
    return absl::InvalidArgumentError(absl::StrCat("block value: ", field, " is ", here, ", the layout's is ", there));
  };
  if (layer_ >= layout.layers) return differ("layer", layer_, absl::StrCat("below ", layout.layers));
  if (kv_heads_ != layout.kv_heads) return differ("kv_heads", kv_heads_, layout.kv_heads);
  if (head_dim_ != layout.head_dim) return differ("head_dim", head_dim_, layout.head_dim);
  if (type_ != layout.type) return differ("type", static_cast<int>(type_), static_cast<int>(layout.type));
  return absl::OkStatus();
}

std::string_view BlockView::Row(int kv_head, int token) const {
  TIDEPOOL_CHECK(kv_head >= 0 && kv_head < kv_heads_ && token >= 0 && token < tokens_);
  const size_t rows = static_cast<size_t>(kv_heads_) * tokens_;
  const size_t row = static_cast<size_t>(kv_head) * tokens_ + token;
  return value_.substr(kBlockHeaderBytes + rows * sizeof(uint32_t) + row * row_bytes(), row_bytes());
}

uint32_t BlockView::RowChecksum(int kv_head, int token) const {
  return Get<uint32_t>(value_, kBlockHeaderBytes + (static_cast<size_t>(kv_head) * tokens_ + token) * sizeof(uint32_t));
}

}  // namespace tidepool
