// D2O's merging (policies/retain/merge.h) where the rows lie: for each row that is to go the kept one whose key is most
// like its own, and mixtures of rows.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MERGE_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MERGE_ROWS_BODY_H_

#include "worker/kernels/cuda/prefill_body.h"

namespace tidepool::cuda {

inline constexpr float kNoCosine = -3e38f;

// Of one head. Kept rows by slot: rank, their place among the kept ones, -1 for all others.
struct AlikeJob {
  HeadPages head;
  const RowPlace* going = nullptr;  // [count] rows that are compared
  const int32_t* rank = nullptr;    // [head.pages * kSlotsOfPage]
  uint16_t* keys = nullptr;         // [count][head_dim]: of the going rows, together
  float* inverse = nullptr;         // [head.pages * kSlotsOfPage] 1 / length of the key
  float* length = nullptr;          // [count] likewise of the going rows
  // [AlikeRows::PartsOf(splits)][count]: the best of a part of the kept rows; no kept row in it: kNoCosine and -1.
  float* cosine = nullptr;
  int32_t* best = nullptr;  // rank; the lowest of those with that cosine
  int32_t count = 0;
  int32_t unused = 0;
};

// Fills keys, length and inverse. A warp for a row: first the going ones, then the slots of the pages. Bytes: each key
// once, the going ones written. Bound: memory. grid: CeilDiv(most of count + pages * kSlotsOfPage, kWarps), jobs
struct MeasureKeys {
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / 32;
  struct Args {
    PageMemoryView memory;
    const AlikeJob* jobs = nullptr;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const AlikeJob job = args.jobs[cta.y()];
    const int lane = cta.thread() % 32, channel = lane * 8, head_dim = args.memory.head_dim;
    int i = cta.x() * kWarps + cta.thread() / 32;
    const bool going = i < job.count;
    RowPlace place;
    if (going) {
      place = job.going[i];
    } else {
      i -= job.count;
      if (i >= job.head.pages * kSlotsOfPage || job.rank[i] < 0) return;  // the whole warp
      const PageEntry entry = job.head.entries[i / kSlotsOfPage];
      place.place = entry.place;
      place.row = static_cast<uint16_t>(entry.half * kSlotsOfPage + i % kSlotsOfPage);
      place.precision = entry.precision;
    }
    float squares = 0;
    if (channel < head_dim) {
      const Words4 words = KeyChunk(args.memory, place, channel);
      for (int w = 0; w < 4; ++w) {
        float two[2];
        HalvesToFloats(words.w[w], two);
        squares += two[0] * two[0] + two[1] * two[1];
      }
      if (going) StoreWords(job.keys + static_cast<int64_t>(i) * head_dim + channel, words);
    }
    squares = cta.WarpSum(squares);
    if (lane == 0) (going ? job.length : job.inverse)[i] = 1.0f / fmaxf(sqrtf(squares), 1e-12f);
  }

 private:
  TP_KERNEL static Words4 KeyChunk(const PageMemoryView& memory, const RowPlace& place, int channel) {
    if (place.precision == KvPrecision::kF16) {
      return LoadWords(memory.Keys(place.place) + place.row * memory.head_dim + channel);
    }
    return PackedRows(memory, place.place, place.precision, channel).HalvesOf(false, place.row);
  }
};

// Cosines of all pairs on the tensor cores; of each going row the largest. A warp for 32 going rows and every so many
// pages. Bytes: K of the kept rows once for 32 going ones, mostly from the second-level cache. Bound: that cache's
// bandwidth, 2 * head_dim operations for each pair. grid: CeilDiv(most of count, kRows), splits, jobs
template <int kLanes>
struct AlikeRows {
  using Tile = PrefillTile<kLanes>;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kTiles = 2;
  static constexpr int kRows = kTiles * kTileTokens;
  using Args = MeasureKeys::Args;
  struct Shared {};
  static int PartsOf(int splits) { return splits * kWarps; }

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const AlikeJob job = args.jobs[cta.z()];
    const int lane = cta.thread() % 32, first = cta.x() * kRows;
    if (first >= job.count) return;
    const int part = cta.y() * kWarps + cta.thread() / 32;
    PrefillArgs going;
    going.memory = args.memory;
    going.q = job.keys;
    going.tokens = job.count;
    going.query_heads = 1;
    typename Tile::Queries queries[kTiles];
    Best best;
    for (int t = 0; t < kTiles; ++t) {
      Tile::LoadQueries(going, 0, first + t * kTileTokens < job.count ? first + t * kTileTokens : 0, lane, queries[t]);
    }
    for (int page = part; page < job.head.pages; page += PartsOfGrid(cta)) {
      int32_t rank[4];  // of slots 2 q, 2 q + 1, 8 + 2 q, 9 + 2 q
      float inverse[4], any = kNoCosine;
      for (int i = 0; i < 4; ++i) {
        const int slot = page * kSlotsOfPage + 2 * (lane % 4) + i % 2 + i / 2 * 8;
        rank[i] = job.rank[slot];
        inverse[i] = rank[i] >= 0 ? job.inverse[slot] : 0.0f;
        any = rank[i] >= 0 ? 1.0f : any;
      }
      if (!cta.WarpAny(any > 0)) continue;
      typename Tile::Keys keys;
      Tile::LoadKeys(args.memory, job.head.entries[page], lane, keys);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int t = 0; t < kTiles; ++t) {
        float scores[2][4];
        Tile::Scores(
            cta, queries[t], [&](int half, int c) { return keys.chunks[half][c]; }, scores);
        for (int half = 0; half < 2; ++half) {
          for (int i = 0; i < 4; ++i) {
            best.Add(2 * t + i / 2, scores[half][i] * inverse[2 * half + i % 2], rank[2 * half + i % 2]);
          }
        }
      }
    }
    float cosine[2 * kTiles], rank[2 * kTiles];
    for (int r = 0; r < 2 * kTiles; ++r) cosine[r] = best.cosine[r];
    cta.template GroupMax<4>(cosine);
    // The lowest rank: a float holds those of any head.
    for (int r = 0; r < 2 * kTiles; ++r) {
      rank[r] = best.cosine[r] == cosine[r] && best.rank[r] >= 0 ? -static_cast<float>(best.rank[r]) : kNoCosine;
    }
    cta.template GroupMax<4>(rank);
    if (lane % 4 != 0) return;
    for (int r = 0; r < 2 * kTiles; ++r) {
      const int row = first + r / 2 * kTileTokens + r % 2 * 8 + lane / 4;
      if (row >= job.count) continue;
      const int64_t at = static_cast<int64_t>(part) * job.count + row;
      job.cosine[at] = rank[r] == kNoCosine ? kNoCosine : cosine[r] * job.length[row];
      job.best[at] = rank[r] == kNoCosine ? -1 : static_cast<int32_t>(-rank[r]);
    }
  }

 private:
  // Of the rows e and e + 8 of each tile.
  struct Best {
    float cosine[2 * kTiles];
    int32_t rank[2 * kTiles];
    TP_KERNEL Best() {
      for (int r = 0; r < 2 * kTiles; ++r) {
        cosine[r] = kNoCosine;
        rank[r] = -1;
      }
    }
    TP_KERNEL void Add(int row, float other, int32_t its_rank) {
      if (its_rank < 0) return;
      if (other > cosine[row] || (other == cosine[row] && its_rank < rank[row])) {
        cosine[row] = other;
        rank[row] = its_rank;
      }
    }
  };
  template <class Cta>
  TP_KERNEL static int PartsOfGrid(Cta& cta) {
    return cta.grid().y * kWarps;
  }
};

// to = (own * from + sum of weight * source) / divisor, in double and in order: the bits of the host. A CTA for a
// mixture. Bytes: each row once each way. Bound: memory.
struct MixRows {
  static constexpr int kThreads = 32;
  struct Source {
    RowPlace place;
    double weight;
  };
  struct Mixture {
    RowPlace from, to;
    int32_t first, count;  // of the sources
    double own, divisor;
  };
  struct Args {
    PageMemoryView memory;
    const Mixture* mixtures = nullptr;
    const Source* sources = nullptr;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const Mixture of = args.mixtures[cta.x()];
    const int head_dim = args.memory.head_dim, chunks = head_dim / 8;
    for (int i = cta.thread(); i < 2 * chunks; i += kThreads) {
      double sums[8] = {};
      Add(args.memory, of.from, i, of.own, sums);
      for (int s = 0; s < of.count; ++s) {
        const Source source = args.sources[of.first + s];
        Add(args.memory, source.place, i, source.weight, sums);
      }
      Words4 words;
      for (int w = 0; w < 4; ++w) {
        words.w[w] =
            ToHalves(static_cast<float>(sums[2 * w] / of.divisor), static_cast<float>(sums[2 * w + 1] / of.divisor));
      }
      StoreWords((i < chunks ? args.memory.Keys(of.to.place) : args.memory.Values(of.to.place)) + of.to.row * head_dim +
                     i % chunks * 8,
                 words);
    }
  }

 private:
  TP_KERNEL static void Add(const PageMemoryView& memory, const RowPlace& place, int chunk, double weight,
                            double (&sums)[8]) {
    const int chunks = memory.head_dim / 8, channel = chunk % chunks * 8;
    Words4 words;
    if (place.precision == KvPrecision::kF16) {
      const uint16_t* from = chunk < chunks ? memory.Keys(place.place) : memory.Values(place.place);
      words = LoadWords(from + place.row * memory.head_dim + channel);
    } else {
      words = PackedRows(memory, place.place, place.precision, channel).HalvesOf(chunk >= chunks, place.row);
    }
    for (int w = 0; w < 4; ++w) {
      float two[2];
      HalvesToFloats(words.w[w], two);
      for (int k = 0; k < 2; ++k) sums[2 * w + k] = TimesPlus(weight, two[k], sums[2 * w + k]);
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MERGE_ROWS_BODY_H_
