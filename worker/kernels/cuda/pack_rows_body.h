// Rows into packed pages: the codes and ranges that worker/backend/cpu/pack_rows.h computes, bit for bit.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_PACK_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_PACK_ROWS_BODY_H_

#include "worker/kernels/cuda/slot_pages.h"

namespace tidepool::cuda {

// Packs groups of kGroupTokens rows, each into a packed page. A thread for each range: int8, a row of K or V; kivi,
// eight channels of the keys, or a row's channels of the values that share one. Bytes: each row twice (the second time
// from a cache), its codes once. Bound: the loads' latency; it runs once for 32 tokens of a head. grid:
// CeilDiv(RangesOf, kThreads), groups
struct PackGroups {
  static constexpr int kThreads = 64;
  struct Args {
    const uint16_t* const* rows = nullptr;  // [groups][kGroupTokens] where the K rows lie
    int64_t value_offset = 0;               // from a K row to its V row, in halves
    char* pages = nullptr;                  // [groups][PackedPage::bytes]
    int32_t head_dim = 0;
    KvPrecision precision = KvPrecision::kInt8;
  };
  struct Shared {};
  static int RangesOf(KvPrecision precision, int head_dim) {
    if (precision == KvPrecision::kInt8) return 2 * kGroupTokens;
    return head_dim / 8 + kGroupTokens * PackedPage(precision, head_dim).value_groups;
  }

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const PackedPage layout(args.precision, args.head_dim);
    const uint16_t* const* rows = args.rows + static_cast<int64_t>(cta.y()) * kGroupTokens;
    char* page = args.pages + static_cast<int64_t>(cta.y()) * layout.bytes;
    int i = cta.x() * kThreads + cta.thread();
    if (args.precision == KvPrecision::kInt8) {
      if (i >= 2 * kGroupTokens) return;
      const int token = i % kGroupTokens;
      const bool values = i >= kGroupTokens;
      PackInt8(rows[token] + (values ? args.value_offset : 0), args.head_dim,
               page + (values ? layout.value_scales : 0) + 2 * token,
               page + (values ? layout.value_codes : layout.key_codes) + token * args.head_dim);
      return;
    }
    if (i < args.head_dim / 8) return PackKeys(rows, i * 8, args, layout, page);
    i -= args.head_dim / 8;
    if (i >= kGroupTokens * layout.value_groups) return;
    const int token = i / layout.value_groups;
    PackValues(rows[token] + args.value_offset, token, i % layout.value_groups, args, layout, page);
  }

 private:
  // The range of some channels (kivi).
  struct Range {
    float minimum = INFINITY, maximum = -INFINITY, scale = 0;
    bool finite = true;

    TP_KERNEL void Add(float x) {
      minimum = fminf(minimum, x);
      maximum = fmaxf(maximum, x);
      finite = finite && IsFinite(x);
    }
    TP_KERNEL void End(int bits) {
      const float step = (maximum - minimum) / static_cast<float>((1 << bits) - 1);
      scale = finite && IsFinite(step) ? step : 0.0f;
    }
    TP_KERNEL uint32_t CodeOf(float x, int bits) const {
      if (scale == 0) return 0;
      const auto top = static_cast<float>((1 << bits) - 1);
      return static_cast<uint32_t>(nearbyintf(fminf(fmaxf((x - minimum) / scale, 0.0f), top)));
    }
  };

  TP_KERNEL static bool IsFinite(float x) { return fabsf(x) <= 3.402823466e38f; }
  TP_KERNEL static void PutHalf(char* at, float x) { *reinterpret_cast<uint16_t*>(at) = FloatToHalf(x); }
  TP_KERNEL static void LoadEight(const uint16_t* from, float (&x)[8]) { LoadChannels(from, true, x); }
  // Eight codes of 2 or 4 bits.
  TP_KERNEL static void PutCodes(char* at, uint32_t codes, int bits) {
    if (bits == 2) {
      *reinterpret_cast<uint16_t*>(at) = static_cast<uint16_t>(codes);
    } else {
      *reinterpret_cast<uint32_t*>(at) = codes;
    }
  }

  TP_KERNEL static void PackInt8(const uint16_t* row, int head_dim, char* scale_at, char* codes) {
    float largest = 0, x[8];
    bool finite = true;
    for (int c = 0; c < head_dim; c += 8) {
      LoadEight(row + c, x);
      for (int k = 0; k < 8; ++k) {
        largest = fmaxf(largest, fabsf(x[k]));
        finite = finite && IsFinite(x[k]);
      }
    }
    const uint16_t half = finite ? FloatToHalf(largest / 127) : static_cast<uint16_t>(0);
    const float scale = HalfToFloat(half);
    *reinterpret_cast<uint16_t*>(scale_at) = half;
    for (int c = 0; c < head_dim; c += 8) {
      LoadEight(row + c, x);
      uint32_t words[2] = {0, 0};
      for (int k = 0; k < 8 && scale > 0; ++k) {
        const float code = fminf(fmaxf(nearbyintf(x[k] / scale), -127.0f), 127.0f);
        words[k / 4] |= (static_cast<uint32_t>(static_cast<int>(code)) & 0xff) << k % 4 * 8;
      }
      for (int w = 0; w < 2; ++w) *reinterpret_cast<uint32_t*>(codes + c + 4 * w) = words[w];
    }
  }

  // Eight channels of all rows, each a range.
  TP_KERNEL static void PackKeys(const uint16_t* const* rows, int channel, const Args& args, const PackedPage& layout,
                                 char* page) {
    const int bits = CodeBits(args.precision);
    Range ranges[8];
    float x[8];
    for (int token = 0; token < kGroupTokens; ++token) {
      LoadEight(rows[token] + channel, x);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int k = 0; k < 8; ++k) ranges[k].Add(x[k]);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int k = 0; k < 8; ++k) {
      ranges[k].End(bits);
      PutHalf(page + 2 * (channel + k), ranges[k].scale);
      PutHalf(page + layout.key_minimums + 2 * (channel + k), ranges[k].minimum);
    }
    for (int token = 0; token < kGroupTokens; ++token) {
      LoadEight(rows[token] + channel, x);
      uint32_t codes = 0;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int k = 0; k < 8; ++k) codes |= ranges[k].CodeOf(x[k], bits) << k * bits;
      PutCodes(page + layout.key_codes + (token * args.head_dim + channel) * bits / 8, codes, bits);
    }
  }

  // A row's channels of one range.
  TP_KERNEL static void PackValues(const uint16_t* row, int token, int group, const Args& args,
                                   const PackedPage& layout, char* page) {
    const int bits = CodeBits(args.precision), first = group * layout.value_group;
    Range range;
    float x[8];
    for (int c = first; c < first + layout.value_group; c += 8) {
      LoadEight(row + c, x);
      for (int k = 0; k < 8; ++k) range.Add(x[k]);
    }
    range.End(bits);
    const int at = 2 * (token * layout.value_groups + group);
    PutHalf(page + layout.value_scales + at, range.scale);
    PutHalf(page + layout.value_minimums + at, range.minimum);
    for (int c = first; c < first + layout.value_group; c += 8) {
      LoadEight(row + c, x);
      uint32_t codes = 0;
      for (int k = 0; k < 8; ++k) codes |= range.CodeOf(x[k], bits) << k * bits;
      PutCodes(page + layout.value_codes + (token * args.head_dim + c) * bits / 8, codes, bits);
    }
  }
};

// Copies pages, whole. A CTA for a page. Bytes: each page once each way. Bound: memory.
struct CopyPages {
  static constexpr int kThreads = 128;
  struct Copy {
    const char* from;
    char* to;
  };
  struct Args {
    const Copy* copies = nullptr;  // none overlap
    int32_t bytes = 0;             // of a page, a multiple of 16
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const Copy copy = args.copies[cta.x()];
    for (int i = cta.thread() * 16; i < args.bytes; i += kThreads * 16)
      StoreWords(copy.to + i, LoadWords(copy.from + i));
  }
};

// Copies int8 rows between packed pages, bit for bit. A warp for a row. Bytes: each row once each way.
struct MovePackedRows {
  static constexpr int kThreads = 32;
  struct Move {
    RowPlace from, to;
  };
  struct Args {
    PageMemoryView memory;
    const Move* moves = nullptr;  // no row is read and written
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const Move move = args.moves[cta.x()];
    const int head_dim = args.memory.head_dim, row_words = head_dim / 4;
    const PackedPage layout(KvPrecision::kInt8, head_dim);
    const char* from = args.memory.Page(move.from.place);
    char* to = args.memory.Page(move.to.place);
    for (int i = cta.thread(); i < 2 * row_words; i += kThreads) {
      const int64_t codes = (i < row_words ? layout.key_codes : layout.value_codes) + i % row_words * 4;
      *reinterpret_cast<uint32_t*>(to + codes + move.to.row * head_dim) =
          LoadWord(from + codes + move.from.row * head_dim);
    }
    if (cta.thread() >= 2) return;
    const int64_t scales = cta.thread() == 0 ? 0 : static_cast<int64_t>(layout.value_scales);
    *reinterpret_cast<uint16_t*>(to + scales + 2 * move.to.row) =
        *reinterpret_cast<const uint16_t*>(from + scales + 2 * move.from.row);
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_PACK_ROWS_BODY_H_
