// Attention of single tokens over ragged slot pages (flash-decoding): a head's pages are split over CTAs, each of which
// leaves a partial softmax; MergeSplits puts them together.
//
// Bytes moved: K and V of every resident row once, as it lies there, all queries of a group sharing each load. Bound:
// memory bandwidth.
//
// A lane holds 8 channels (16 bytes), so kLanes = head_dim / 8, rounded up to a power of two, make a row, and a warp
// reads 32 / kLanes rows at a time. Softmax in powers of two: exp(s) = 2^(s log2 e).
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_ATTEND_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_ATTEND_BODY_H_

#include "worker/kernels/cuda/rows_body.h"
#include "worker/kernels/cuda/slot_pages.h"

namespace tidepool::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kNoScore = -1e30f;  // below every score; finite, so that differences are

struct AttendArgs {
  PageMemoryView memory;
  const HeadPages* heads = nullptr;  // [slices][kv_heads]
  const int32_t* rows = nullptr;     // [slices]: the row of q
  const float* q = nullptr;          // [..][query_heads][head_dim]
  int32_t query_heads = 0, kv_heads = 0;
  float scale = 0;  // 1 / sqrt(head_dim)
  int32_t splits = 1;
  // Partial results, [slices][query_heads][splits], of values [head_dim] each: not divided by `sum` yet.
  float* part_out = nullptr;
  float* part_maximum = nullptr;  // of score * log2 e
  float* part_sum = nullptr;
};

// grid: splits, kv_heads * CeilDiv(group, kQueries), slices. kPacked: some pages are packed.
template <int kLanes, int kQueries, bool kPacked>
struct AttendPages {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowsAtOnce = 32 / kLanes;            // of a warp
  static constexpr int kSteps = kSlotsOfPage / kRowsAtOnce;  // of a page
  // Loads in flight; of packed rows for many queries fewer, so that registers suffice.
  static constexpr int kMostUnrolled = kPacked && kQueries > 4 ? 2 : 4;
  static constexpr int kUnroll = kSteps < kMostUnrolled ? kSteps : kMostUnrolled;
  static constexpr int kDims = kLanes * 8;
  using Args = AttendArgs;
  struct Shared {
    SharedArray<float, kWarps * kQueries> maximum, sum;
    SharedArray<float, kWarps * kQueries * kDims> out;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int group = args.query_heads / args.kv_heads, parts = (group + kQueries - 1) / kQueries;
    const int kv_head = cta.y() / parts, first_query = cta.y() % parts * kQueries, slice = cta.z();
    const int head_dim = args.memory.head_dim;
    const int lane = cta.thread() % 32, warp = cta.thread() / 32, channel = lane % kLanes * 8;
    const bool has_channels = channel < head_dim;
    const HeadPages head = args.heads[static_cast<int64_t>(slice) * args.kv_heads + kv_head];
    const int pages_each = (head.pages + args.splits - 1) / args.splits;
    const int first = cta.x() * pages_each, end = first + pages_each < head.pages ? first + pages_each : head.pages;

    State state;
    for (int j = 0; j < kQueries; ++j) {
      const int query = first_query + j < group ? first_query + j : 0;  // one that exists; the result is not used
      const float* from =
          args.q + (static_cast<int64_t>(args.rows[slice]) * args.query_heads + kv_head * group + query) * head_dim +
          channel;
      for (int i = 0; i < 8; ++i) state.q[j][i] = has_channels ? from[i] * (args.scale * kLog2E) : 0.0f;
      state.maximum[j] = kNoScore;
      state.sum[j] = 0;
      for (int i = 0; i < 8; ++i) state.out[j][i] = 0;
    }
    for (int page = first + warp; page < end; page += kWarps) {
      const PageEntry entry = head.entries[page];
      if (entry.valid == 0) continue;
      // Channels that do not exist: the first ones, times 0.
      const int existing = has_channels ? channel : 0;
      if (kPacked && entry.precision != KvPrecision::kF16) {
        AddPage(cta, PackedRows(args.memory, entry.place, entry.precision, existing), entry, lane / kLanes, state);
      } else {
        AddPage(cta, PlainRows(args.memory, entry.place, existing), entry, lane / kLanes, state);
      }
    }
    MergeWarp(cta, state);
    if (lane < kLanes && has_channels) {
      for (int j = 0; j < kQueries; ++j) {
        for (int i = 0; i < 8; ++i) shared.out[(warp * kQueries + j) * kDims + channel + i] = state.out[j][i];
      }
    }
    if (lane == 0) {
      for (int j = 0; j < kQueries; ++j) {
        shared.maximum[warp * kQueries + j] = state.maximum[j];
        shared.sum[warp * kQueries + j] = state.sum[j];
      }
    }
    cta.Sync();
    for (int j = 0; j < kQueries && first_query + j < group; ++j) {
      float maximum = kNoScore, sum = 0;
      float factor[kWarps];
      for (int w = 0; w < kWarps; ++w) maximum = fmaxf(maximum, shared.maximum[w * kQueries + j]);
      for (int w = 0; w < kWarps; ++w) {
        factor[w] = Exp2(static_cast<float>(shared.maximum[w * kQueries + j]) - maximum);
        sum += factor[w] * shared.sum[w * kQueries + j];
      }
      const int64_t at =
          (static_cast<int64_t>(slice) * args.query_heads + kv_head * group + first_query + j) * args.splits + cta.x();
      for (int c = cta.thread(); c < head_dim; c += kThreads) {
        float out = 0;
        for (int w = 0; w < kWarps; ++w) out += factor[w] * shared.out[(w * kQueries + j) * kDims + c];
        args.part_out[at * head_dim + c] = out;
      }
      if (cta.thread() == 0) {
        args.part_maximum[at] = maximum;
        args.part_sum[at] = sum;
      }
    }
  }

 private:
  // Of a lane: what its rows gave so far.
  struct State {
    float q[kQueries][8];
    float maximum[kQueries], sum[kQueries];
    float out[kQueries][8];
  };

  template <class Cta, class Rows>
  TP_KERNEL static void AddPage(Cta& cta, const Rows& rows, const PageEntry& entry, int slot, State& state) {
    for (int step = 0; step < kSteps; step += kUnroll) {
      AddRows(cta, rows, entry.half * kSlotsOfPage, entry.valid, step * kRowsAtOnce + slot, state);
    }
  }

  // The rows in slots slot, slot + kRowsAtOnce, ..: kUnroll of them. Slot 0 is row `first` of its page.
  template <class Cta, class Rows>
  TP_KERNEL static void AddRows(Cta& cta, const Rows& rows, int first, uint32_t valid, int slot, State& state) {
    const int somebody = LowestBit(valid);
    bool here[kUnroll];
    typename Rows::Channels keys[kUnroll], values[kUnroll];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int r = 0; r < kUnroll; ++r) {
      const int at = slot + r * kRowsAtOnce;
      here[r] = (valid >> at & 1) != 0;
      // For a free slot another row, so that no load waits for a branch; it weighs 0.
      const int row = first + (here[r] ? at : somebody);
      keys[r] = rows.LoadKey(row);
      values[r] = rows.LoadValue(row);
    }
    float scores[kUnroll * kQueries];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int r = 0; r < kUnroll; ++r) {
      float key[8];
      rows.KeyOf(keys[r], key);
      for (int j = 0; j < kQueries; ++j) {
        float dot = 0;
        for (int i = 0; i < 8; ++i) dot += state.q[j][i] * key[i];
        scores[r * kQueries + j] = dot;
      }
    }
    cta.template GroupSum<kLanes>(scores);
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int j = 0; j < kQueries; ++j) {
      float maximum = state.maximum[j];
      for (int r = 0; r < kUnroll; ++r) {
        if (here[r]) maximum = fmaxf(maximum, scores[r * kQueries + j]);
      }
      const float kept = Exp2(state.maximum[j] - maximum);
      state.maximum[j] = maximum;
      state.sum[j] *= kept;
      for (int i = 0; i < 8; ++i) state.out[j][i] *= kept;
      for (int r = 0; r < kUnroll; ++r) {
        float& score = scores[r * kQueries + j];
        score = here[r] ? Exp2(score - maximum) : 0.0f;
        state.sum[j] += score;
      }
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int r = 0; r < kUnroll; ++r) {
      float value[8];
      rows.ValueOf(values[r], value);
      for (int j = 0; j < kQueries; ++j) {
        for (int i = 0; i < 8; ++i) state.out[j][i] += scores[r * kQueries + j] * value[i];
      }
    }
  }

  // What the lane groups of a warp gave, in all of them.
  template <class Cta>
  TP_KERNEL static void MergeWarp(Cta& cta, State& state) {
    float maximum[kQueries];
    for (int j = 0; j < kQueries; ++j) maximum[j] = state.maximum[j];
    cta.template CrossMax<kLanes>(maximum);
    for (int j = 0; j < kQueries; ++j) {
      const float factor = Exp2(state.maximum[j] - maximum[j]);
      state.maximum[j] = maximum[j];
      state.sum[j] *= factor;
      for (int i = 0; i < 8; ++i) state.out[j][i] *= factor;
    }
    cta.template CrossSum<kLanes>(state.sum);
    for (int j = 0; j < kQueries; ++j) cta.template CrossSum<kLanes>(state.out[j]);
  }
};

template <int kLanes, int kQueries>
struct AttendSplit : AttendPages<kLanes, kQueries, false> {};
template <int kLanes, int kQueries>
struct AttendPacked : AttendPages<kLanes, kQueries, true> {};

// out = the softmax over all splits. grid: query_heads, slices
struct MergeSplits {
  static constexpr int kThreads = 128;
  static constexpr int kMostSplits = 128;
  struct Args {
    AttendArgs parts;
    float* out = nullptr;  // [..][query_heads][head_dim], rows as of q; or null
    // The forms of PrepareRows, likewise, each null where it is not wanted. For values head_dim must be a multiple
    // of 32.
    uint16_t* halves = nullptr;
    int8_t* values = nullptr;
    float* scales = nullptr;
    float* sums = nullptr;
    // [slices][query_heads] log2 of the sum of exp(score), or null
    float* log_sum = nullptr;
  };
  struct Shared {
    SharedArray<float, kMostSplits> factor;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const AttendArgs& parts = args.parts;
    const int head = cta.x(), slice = cta.y(), head_dim = parts.memory.head_dim, lane = cta.thread() % 32;
    const int64_t at = (static_cast<int64_t>(slice) * parts.query_heads + head) * parts.splits;
    float maximum = kNoScore, sum = 0;
    for (int s = lane; s < parts.splits; s += 32) maximum = fmaxf(maximum, parts.part_maximum[at + s]);
    maximum = cta.WarpMax(maximum);
    for (int s = lane; s < parts.splits; s += 32)
      sum += Exp2(parts.part_maximum[at + s] - maximum) * parts.part_sum[at + s];
    sum = cta.WarpSum(sum);
    for (int s = cta.thread(); s < parts.splits; s += kThreads) {
      shared.factor[s] = Exp2(parts.part_maximum[at + s] - maximum) / sum;
    }
    cta.Sync();
    const int64_t row = (static_cast<int64_t>(parts.rows[slice]) * parts.query_heads + head) * head_dim;
    for (int first = 0; first < head_dim; first += kThreads) {
      const int c = first + cta.thread();
      float out[1] = {0};
      if (c < head_dim) {
#ifdef __CUDACC__
#pragma unroll 8
#endif
        for (int s = 0; s < parts.splits; ++s) out[0] += shared.factor[s] * parts.part_out[(at + s) * head_dim + c];
        if (args.out != nullptr) args.out[row + c] = out[0];
        if (args.halves != nullptr) args.halves[row + c] = FloatToHalf(ClampedToHalfRange(out[0]));
      }
      if (args.values == nullptr) continue;  // for all
      QuantizeColumns<1>(cta, out, c < head_dim, args.values + row + c, args.scales + (row + c) / kBlock,
                         args.sums + (row + c) / kBlock);
    }
    if (args.log_sum != nullptr && cta.thread() == 0) {
      args.log_sum[static_cast<int64_t>(slice) * parts.query_heads + head] = maximum + log2f(sum);
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_ATTEND_BODY_H_
