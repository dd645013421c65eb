#include "worker/backend/cpu/pack_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/kivi.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool {
namespace {

uint16_t ToHalf(float x) {
  uint16_t half;
  FloatToHalf(&x, 1, &half);
  return half;
}

float FromHalf(const char* half) {
  uint16_t bits;
  std::memcpy(&bits, half, sizeof bits);
  float x;
  HalfToFloat(&bits, 1, &x);
  return x;
}

// Where the code of an element lies.
class CodePlace {
 public:
  CodePlace(KvPrecision precision, int head_dim)
      : layout_(precision, head_dim), bits_(CodeBits(precision)), head_dim_(head_dim) {}
  const PackedPage& layout() const { return layout_; }

  void PutKey(char* page, int token, int channel, uint32_t code) const {
    Put(page + layout_.key_codes + KeyRun(token, channel), token % 16, code);
  }
  void PutValue(char* page, int token, int channel, uint32_t code) const {
    Put(page + layout_.value_codes + ValueRun(token, channel), channel % 16, code);
  }
  uint32_t Key(const char* page, int token, int channel) const {
    return Get(page + layout_.key_codes + KeyRun(token, channel), token % 16);
  }
  uint32_t Value(const char* page, int token, int channel) const {
    return Get(page + layout_.value_codes + ValueRun(token, channel), channel % 16);
  }

 private:
  // Sixteen codes lie together.
  size_t KeyRun(int token, int channel) const {
    return (static_cast<size_t>(token / 16) * head_dim_ + channel) * layout_.code_bytes;
  }
  size_t ValueRun(int token, int channel) const {
    return (static_cast<size_t>(token) * (head_dim_ / 16) + channel / 16) * layout_.code_bytes;
  }
  void Put(char* run, int index, uint32_t code) const {
    auto& byte = reinterpret_cast<uint8_t&>(run[index * bits_ / 8]);
    byte = static_cast<uint8_t>(byte | code << (index * bits_ % 8));  // the page was cleared
  }
  uint32_t Get(const char* run, int index) const {
    return static_cast<uint8_t>(run[index * bits_ / 8]) >> (index * bits_ % 8) & ((1u << bits_) - 1);
  }

  const PackedPage layout_;
  const int bits_, head_dim_;
};

// Codes of one row, symmetric; returns its scale as a half. Rows with a number that is not finite become zero.
uint16_t Int8Codes(const float* x, int count, int8_t* codes) {
  float largest = 0;
  bool finite = true;
  for (int i = 0; i < count; ++i) {
    largest = std::max(largest, std::abs(x[i]));
    finite = finite && std::isfinite(x[i]);
  }
  const uint16_t half = finite ? ToHalf(largest / 127) : 0;
  const float scale = FromHalf(reinterpret_cast<const char*>(&half));
  for (int i = 0; i < count; ++i) {
    const float code = finite && scale > 0 ? std::clamp(std::nearbyint(x[i] / scale), -127.0f, 127.0f) : 0.0f;
    codes[i] = static_cast<int8_t>(code);
  }
  return half;
}

void PackInt8(int head_dim, const float* keys, const float* values, char* page) {
  const CodePlace place(KvPrecision::kInt8, head_dim);
  std::vector<int8_t> codes(head_dim);
  for (int token = 0; token < kGroupTokens; ++token) {
    const uint16_t key_scale = Int8Codes(keys + token * head_dim, head_dim, codes.data());
    std::memcpy(page + token * 2, &key_scale, 2);
    for (int c = 0; c < head_dim; ++c) place.PutKey(page, token, c, static_cast<uint8_t>(codes[c]));
    const uint16_t value_scale = Int8Codes(values + token * head_dim, head_dim, codes.data());
    std::memcpy(page + place.layout().value_scales + token * 2, &value_scale, 2);
    for (int c = 0; c < head_dim; ++c) place.PutValue(page, token, c, static_cast<uint8_t>(codes[c]));
  }
}

void PackKivi(KvPrecision precision, int head_dim, const float* keys, const float* values, char* page) {
  const CodePlace place(precision, head_dim);
  const PackedPage& layout = place.layout();
  const KiviFormat key_format{.bits = CodeBits(precision), .group = kGroupTokens};
  const KiviFormat value_format{.bits = CodeBits(precision), .group = layout.value_group};
  const size_t count = static_cast<size_t>(kGroupTokens) * head_dim;
  const KiviRows key_rows = QuantizeKeys(absl::MakeConstSpan(keys, count), head_dim, key_format);
  const KiviRows value_rows = QuantizeValues(absl::MakeConstSpan(values, count), head_dim, value_format);
  auto put_halves = [&](const std::vector<float>& from, size_t at) {
    FloatToHalf(from.data(), static_cast<int64_t>(from.size()), reinterpret_cast<uint16_t*>(page + at));
  };
  put_halves(key_rows.scale, 0);
  put_halves(key_rows.minimum, layout.key_minimums);
  put_halves(value_rows.scale, layout.value_scales);
  put_halves(value_rows.minimum, layout.value_minimums);
  for (int token = 0; token < kGroupTokens; ++token) {
    for (int c = 0; c < head_dim; ++c) {
      place.PutKey(page, token, c, KeyCode(key_rows, head_dim, key_format, token, c));
      place.PutValue(page, token, c, ValueCode(value_rows, head_dim, value_format, token, c));
    }
  }
}

}  // namespace

void PackRows(KvPrecision precision, int head_dim, const float* keys, const float* values, char* page) {
  std::memset(page, 0, PackedPage(precision, head_dim).bytes);
  if (precision == KvPrecision::kInt8) {
    PackInt8(head_dim, keys, values, page);
  } else {
    PackKivi(precision, head_dim, keys, values, page);
  }
}

void UnpackRow(KvPrecision precision, int head_dim, const char* page, int token, float* key, float* value) {
  const CodePlace place(precision, head_dim);
  const PackedPage& layout = place.layout();
  if (precision == KvPrecision::kInt8) {
    const float key_scale = FromHalf(page + token * 2), value_scale = FromHalf(page + layout.value_scales + token * 2);
    for (int c = 0; c < head_dim; ++c) {
      key[c] = static_cast<float>(static_cast<int8_t>(place.Key(page, token, c))) * key_scale;
      value[c] = static_cast<float>(static_cast<int8_t>(place.Value(page, token, c))) * value_scale;
    }
    return;
  }
  for (int c = 0; c < head_dim; ++c) {
    const size_t range = 2 * (static_cast<size_t>(token) * layout.value_groups + c / layout.value_group);
    key[c] = static_cast<float>(place.Key(page, token, c)) * FromHalf(page + 2 * c) +
             FromHalf(page + layout.key_minimums + 2 * c);
    value[c] = static_cast<float>(place.Value(page, token, c)) * FromHalf(page + layout.value_scales + range) +
               FromHalf(page + layout.value_minimums + range);
  }
}

void CopyInt8Row(int head_dim, const char* from, int from_token, char* to, int to_token) {
  const PackedPage layout(KvPrecision::kInt8, head_dim);
  std::memcpy(to + 2 * to_token, from + 2 * from_token, 2);
  std::memcpy(to + layout.value_scales + 2 * to_token, from + layout.value_scales + 2 * from_token, 2);
  auto key = [&](auto* page, int token) {
    return page + layout.key_codes + static_cast<size_t>(token / 16) * head_dim * 16 + token % 16;
  };
  for (int c = 0; c < head_dim; ++c) key(to, to_token)[c * 16] = key(from, from_token)[c * 16];
  std::memcpy(to + layout.value_codes + static_cast<size_t>(to_token) * head_dim,
              from + layout.value_codes + static_cast<size_t>(from_token) * head_dim, head_dim);
}

}  // namespace tidepool
