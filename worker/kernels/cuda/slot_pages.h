// Slot pages and packed pages in device memory, and which of them a head's rows lie in.
//
// A slot page (kPageSlots slots of one (layer, kv head)): K [kPageSlots][head_dim], then V likewise, halves. A row of K
// or V is one run of memory: a warp reads several rows in one load. A packed page is as policies/kv/packed_page.h lays
// it out, but for the keys' codes, which lie as the values' do, row by row.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_

#include <cstdint>

#include "policies/kv/packed_page.h"
#include "worker/kernels/cuda/cta.h"

namespace tidepool::cuda {

inline constexpr int kSlotsOfPage = 16;
inline constexpr int kPlaceBytes = 64;  // pages begin at multiples of it

// kSlotsOfPage slots: a slot page, or half of a packed page.
struct PageEntry {
  uint32_t place = 0;  // where the page begins, in kPlaceBytes
  uint16_t valid = 0;  // bit i: slot i holds a row
  KvPrecision precision = KvPrecision::kF16;
  uint8_t half = 0;  // of a packed page
};

// Of one (sequence, layer, kv head): slot s lies in entries[s / kSlotsOfPage].
struct HeadPages {
  const PageEntry* entries = nullptr;
  int32_t pages = 0;
  int32_t unused = 0;
};

// A row: a slot of a slot page, or one of the kGroupTokens of a packed page.
struct RowPlace {
  uint32_t place = 0;
  uint16_t row = 0;
  KvPrecision precision = KvPrecision::kF16;
  uint8_t unused = 0;
};

struct PageMemoryView {
  char* base = nullptr;
  int32_t head_dim = 0;

  TP_KERNEL char* Page(uint32_t place) const { return base + static_cast<int64_t>(place) * kPlaceBytes; }
  // Of a slot page.
  TP_KERNEL uint16_t* Keys(uint32_t place) const { return reinterpret_cast<uint16_t*>(Page(place)); }
  TP_KERNEL uint16_t* Values(uint32_t place) const { return Keys(place) + kSlotsOfPage * head_dim; }
};

// Eight channels of a row as float32; zeros where it does not exist.
TP_KERNEL void LoadChannels(const uint16_t* row, bool exists, float (&out)[8]) {
  Words4 words = {};
  if (exists) words = LoadWords(row);
  for (int i = 0; i < 4; ++i) HalvesToFloats(words.w[i], &out[2 * i]);
}

// Rows of a slot page, eight channels at a time.
class PlainRows {
 public:
  using Channels = Words4;

  TP_KERNEL PlainRows(const PageMemoryView& memory, uint32_t place, int channel)
      : keys_(memory.Keys(place) + channel), values_(memory.Values(place) + channel), head_dim_(memory.head_dim) {}
  TP_KERNEL Channels LoadKey(int row) const { return LoadWords(keys_ + row * head_dim_); }
  TP_KERNEL Channels LoadValue(int row) const { return LoadWords(values_ + row * head_dim_); }
  TP_KERNEL void KeyOf(const Channels& key, float (&out)[8]) const {
    for (int i = 0; i < 4; ++i) HalvesToFloats(key.w[i], &out[2 * i]);
  }
  TP_KERNEL void ValueOf(const Channels& value, float (&out)[8]) const { KeyOf(value, out); }

 private:
  const uint16_t *const keys_, *const values_;
  const int head_dim_;
};

// Rows of a packed page, eight channels at a time from a multiple of eight on. Bytes: codes, 8 * CodeBits / 8 of a row;
// its ranges, 2 or 4 of a row and (kivi) 32 of the page's keys.
class PackedRows {
 public:
  // x = code * scale + minimum
  struct Channels {
    uint32_t codes[2];
    float scale, minimum;  // of all eight, where they share them
  };

  TP_KERNEL PackedRows(const PageMemoryView& memory, uint32_t place, KvPrecision precision, int channel)
      : page_(memory.Page(place)),
        layout_(precision, memory.head_dim),
        precision_(precision),
        head_dim_(memory.head_dim),
        channel_(channel) {
    if (precision == KvPrecision::kInt8) return;
    key_scales_ = LoadWords(page_ + 2 * channel);
    key_minimums_ = LoadWords(page_ + layout_.key_minimums + 2 * channel);
  }

  TP_KERNEL Channels LoadKey(int token) const {
    Channels key;
    LoadCodes(layout_.key_codes, token, key);
    key.scale = precision_ == KvPrecision::kInt8 ? HalfAt(2 * token) : 0.0f;
    key.minimum = 0;
    return key;
  }
  TP_KERNEL Channels LoadValue(int token) const {
    Channels value;
    LoadCodes(layout_.value_codes, token, value);
    const int range =
        precision_ == KvPrecision::kInt8 ? token : token * layout_.value_groups + channel_ / layout_.value_group;
    value.scale = HalfAt(layout_.value_scales + 2 * range);
    value.minimum = precision_ == KvPrecision::kInt8 ? 0.0f : HalfAt(layout_.value_minimums + 2 * range);
    return value;
  }
  TP_KERNEL void KeyOf(const Channels& key, float (&out)[8]) const {
    if (precision_ == KvPrecision::kInt8) {
      for (int i = 0; i < 8; ++i) out[i] = Code(key, i) * key.scale;
      return;
    }
    for (int i = 0; i < 4; ++i) {
      float scale[2], minimum[2];
      HalvesToFloats(key_scales_.w[i], scale);
      HalvesToFloats(key_minimums_.w[i], minimum);
      for (int k = 0; k < 2; ++k) out[2 * i + k] = Code(key, 2 * i + k) * scale[k] + minimum[k];
    }
  }
  TP_KERNEL void ValueOf(const Channels& value, float (&out)[8]) const {
    for (int i = 0; i < 8; ++i) out[i] = Code(value, i) * value.scale + value.minimum;
  }
  // As halves.
  TP_KERNEL Words4 HalvesOf(bool values, int token) const {
    float x[8];
    if (values) {
      ValueOf(LoadValue(token), x);
    } else {
      KeyOf(LoadKey(token), x);
    }
    Words4 words;
    for (int i = 0; i < 4; ++i) words.w[i] = ToHalves(x[2 * i], x[2 * i + 1]);
    return words;
  }

 private:
  TP_KERNEL float HalfAt(int64_t offset) const {
    return HalfToFloat(*reinterpret_cast<const uint16_t*>(page_ + offset));
  }
  TP_KERNEL void LoadCodes(int64_t codes, int token, Channels& out) const {
    const int bits = CodeBits(precision_);
    const char* from = page_ + codes + (token * head_dim_ + channel_) * bits / 8;
    out.codes[1] = 0;
    if (bits == 2) {
      out.codes[0] = *reinterpret_cast<const uint16_t*>(from);
    } else {
      out.codes[0] = LoadWord(from);
      if (bits == 8) out.codes[1] = LoadWord(from + 4);
    }
  }
  TP_KERNEL float Code(const Channels& of, int i) const {
    if (precision_ == KvPrecision::kInt8) {
      return static_cast<float>(static_cast<int8_t>(of.codes[i / 4] >> i % 4 * 8));
    }
    const int bits = CodeBits(precision_);
    return static_cast<float>(of.codes[0] >> i * bits & ((1u << bits) - 1));
  }

  const char* const page_;
  const PackedPage layout_;
  const KvPrecision precision_;
  const int head_dim_, channel_;
  Words4 key_scales_ = {}, key_minimums_ = {};  // kivi: of the eight channels
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_
