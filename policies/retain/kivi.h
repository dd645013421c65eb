// KIVI (arXiv 2402.02750; policies.md section 7): keys and values in 2, 4 or 8 bits. A few channels of the keys are
// large in every token, so keys are quantised per channel, over groups of consecutive tokens; values have no such
// channels and are quantised per token, over groups of consecutive channels, so that one token's error stays its own.
//
//   scale = (max - min) / (2^bits - 1), code = round(clamp((x - min) / scale)), x' = code * scale + min
//
// of each group, halves to even. A constant group has scale 0 and code 0 (the official code divides by zero); so have
// groups that hold an infinity or no number.
//
// Codes lie in 32-bit words, the first in the lowest bits. Keys: a word holds consecutive tokens of one channel,
// [tokens / per word][head_dim] words; values: consecutive channels of one token, [tokens][head_dim / per word] words.
#ifndef TIDEPOOL_POLICIES_RETAIN_KIVI_H_
#define TIDEPOOL_POLICIES_RETAIN_KIVI_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

struct KiviFormat {
  int bits = 2;    // 2, 4 or 8
  int group = 32;  // tokens (keys) or channels (values) that share a scale; a multiple of per_word()
  // Scales and minimums are rounded to what fp16 holds, as stored by the official code; the codes do not change.
  bool half_scales = false;

  int per_word() const { return 32 / bits; }
};

// Quantised rows of one kv head.
struct KiviRows {
  int tokens = 0;
  std::vector<uint32_t> words;
  std::vector<float> scale, minimum;  // keys [tokens / group][head_dim], values [tokens][head_dim / group]
};

// keys [tokens][head_dim], a multiple of format.group tokens.
KiviRows QuantizeKeys(absl::Span<const float> keys, int head_dim, const KiviFormat& format);
// values [tokens][head_dim], head_dim a multiple of format.group.
KiviRows QuantizeValues(absl::Span<const float> values, int head_dim, const KiviFormat& format);

// [tokens][head_dim]
std::vector<float> DequantizeKeys(const KiviRows& rows, int head_dim, const KiviFormat& format);
std::vector<float> DequantizeValues(const KiviRows& rows, int head_dim, const KiviFormat& format);

uint32_t KeyCode(const KiviRows& rows, int head_dim, const KiviFormat& format, int token, int channel);
uint32_t ValueCode(const KiviRows& rows, int head_dim, const KiviFormat& format, int token, int channel);

// How many of the first tokens are quantised, the others stay as they are. `residual` is a multiple of the group. Keys
// wait until `residual` of them are together; of the values the last `residual` wait, and one leaves at each step. What
// is quantised never changes again: a longer sequence quantises the same and more.
struct KiviSplit {
  int keys = 0;
  int values = 0;
};
KiviSplit SplitForKivi(int tokens, int residual);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_KIVI_H_
