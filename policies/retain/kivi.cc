#include "policies/retain/kivi.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace tidepool {
namespace {

// The nearest number that fp16 holds: 11 significant bits, exponents from -14, the rest in steps of 2^-24.
float RoundedToHalf(float x) {
  constexpr float kLargest = 65504.0f;
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent;
  std::frexp(x, &exponent);
  const int step = std::max(exponent - 11, -24);
  return std::clamp(std::ldexp(std::nearbyint(std::ldexp(x, -step)), step), -kLargest, kLargest);
}

// Where an element's code, and its group's scale, lie. Keys and values differ in nothing else.
class KeyLayout {
 public:
  KeyLayout(int head_dim, const KiviFormat& format) : head_dim_(head_dim), format_(format) {}
  size_t word(int token, int channel) const { return size_t(token / format_.per_word()) * head_dim_ + channel; }
  int shift(int token, int) const { return token % format_.per_word() * format_.bits; }
  size_t group(int token, int channel) const { return size_t(token / format_.group) * head_dim_ + channel; }

 private:
  const int head_dim_;
  const KiviFormat format_;
};

class ValueLayout {
 public:
  ValueLayout(int head_dim, const KiviFormat& format) : head_dim_(head_dim), format_(format) {}
  size_t word(int token, int channel) const {
    return size_t(token) * (head_dim_ / format_.per_word()) + channel / format_.per_word();
  }
  int shift(int, int channel) const { return channel % format_.per_word() * format_.bits; }
  size_t group(int token, int channel) const {
    return size_t(token) * (head_dim_ / format_.group) + channel / format_.group;
  }

 private:
  const int head_dim_;
  const KiviFormat format_;
};

void CheckFormat(const KiviFormat& format) {
  TIDEPOOL_CHECK(format.bits == 2 || format.bits == 4 || format.bits == 8);
  TIDEPOOL_CHECK(format.group >= 1 && format.group % format.per_word() == 0);
}

template <typename Layout>
KiviRows Quantize(absl::Span<const float> x, int head_dim, const KiviFormat& format) {
  CheckFormat(format);
  TIDEPOOL_CHECK(head_dim >= 1 && x.size() % head_dim == 0);
  const Layout layout(head_dim, format);
  KiviRows rows;
  rows.tokens = static_cast<int>(x.size() / head_dim);
  rows.words.assign(x.size() / format.per_word(), 0);
  const size_t groups = x.size() / format.group;
  rows.minimum.assign(groups, std::numeric_limits<float>::infinity());
  std::vector<float> maximum(groups, -std::numeric_limits<float>::infinity());
  std::vector<uint8_t> finite(groups, 1);
  auto each = [&](auto&& visit) {
    for (int token = 0; token < rows.tokens; ++token) {
      for (int channel = 0; channel < head_dim; ++channel) {
        visit(token, channel, x[size_t(token) * head_dim + channel], layout.group(token, channel));
      }
    }
  };
  each([&](int, int, float value, size_t group) {
    rows.minimum[group] = std::min(rows.minimum[group], value);
    maximum[group] = std::max(maximum[group], value);
    finite[group] = finite[group] && std::isfinite(value);
  });
  const float top = static_cast<float>((1 << format.bits) - 1);
  rows.scale.assign(groups, 0.0f);
  for (size_t group = 0; group < groups; ++group) {
    // The range of finite numbers can still be infinite.
    const float scale = (maximum[group] - rows.minimum[group]) / top;
    if (finite[group] && std::isfinite(scale)) rows.scale[group] = scale;
  }
  each([&](int token, int channel, float value, size_t group) {
    if (rows.scale[group] == 0) return;
    const float code = std::clamp((value - rows.minimum[group]) / rows.scale[group], 0.0f, top);
    rows.words[layout.word(token, channel)] |= static_cast<uint32_t>(std::nearbyint(code))
                                               << layout.shift(token, channel);
  });
  if (format.half_scales) {
    for (float& scale : rows.scale) scale = RoundedToHalf(scale);
    for (float& minimum : rows.minimum) minimum = RoundedToHalf(minimum);
  }
  return rows;
}

template <typename Layout>
uint32_t Code(const KiviRows& rows, int head_dim, const KiviFormat& format, int token, int channel) {
  const Layout layout(head_dim, format);
  return rows.words[layout.word(token, channel)] >> layout.shift(token, channel) & ((1u << format.bits) - 1);
}

template <typename Layout>
std::vector<float> Dequantize(const KiviRows& rows, int head_dim, const KiviFormat& format) {
  CheckFormat(format);
  const Layout layout(head_dim, format);
  std::vector<float> out;
  out.reserve(size_t(rows.tokens) * head_dim);
  for (int token = 0; token < rows.tokens; ++token) {
    for (int channel = 0; channel < head_dim; ++channel) {
      const size_t group = layout.group(token, channel);
      const auto code = static_cast<float>(Code<Layout>(rows, head_dim, format, token, channel));
      out.push_back(code * rows.scale[group] + rows.minimum[group]);
    }
  }
  return out;
}

}  // namespace

KiviRows QuantizeKeys(absl::Span<const float> keys, int head_dim, const KiviFormat& format) {
  TIDEPOOL_CHECK(keys.size() % (size_t(format.group) * head_dim) == 0);
  return Quantize<KeyLayout>(keys, head_dim, format);
}

KiviRows QuantizeValues(absl::Span<const float> values, int head_dim, const KiviFormat& format) {
  TIDEPOOL_CHECK(head_dim % format.group == 0);
  return Quantize<ValueLayout>(values, head_dim, format);
}

std::vector<float> DequantizeKeys(const KiviRows& rows, int head_dim, const KiviFormat& format) {
  return Dequantize<KeyLayout>(rows, head_dim, format);
}

std::vector<float> DequantizeValues(const KiviRows& rows, int head_dim, const KiviFormat& format) {
  return Dequantize<ValueLayout>(rows, head_dim, format);
}

uint32_t KeyCode(const KiviRows& rows, int head_dim, const KiviFormat& format, int token, int channel) {
  return Code<KeyLayout>(rows, head_dim, format, token, channel);
}

uint32_t ValueCode(const KiviRows& rows, int head_dim, const KiviFormat& format, int token, int channel) {
  return Code<ValueLayout>(rows, head_dim, format, token, channel);
}

KiviSplit SplitForKivi(int tokens, int residual) {
  TIDEPOOL_CHECK(tokens >= 0 && residual >= 1);
  return {.keys = tokens - tokens % residual, .values = std::max(0, tokens - residual)};
}

}  // namespace tidepool
