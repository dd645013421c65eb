// Which rows of a (layer, kv head) its queries want back, by an index of 4-bit product codes
// (policies/recall/product_code.h): scores of all rows by their codes, the softmax over candidates, and the best rows
// by the mean over the group's query heads. Three launches; nothing but the rows found goes to the host.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_RECALL_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_RECALL_BODY_H_

#include "worker/kernels/cuda/cta.h"

namespace tidepool::cuda {

// A stretch of tiles of 16 rows that one CTA scores, all coded by one segment's tables.
struct RecallPart {
  int32_t segment = 0;  // -1: the rows that have no codes
  int32_t first_tile = 0, tiles = 0;
};

// Of a segment: offset [head_dim] and scale [head_dim], floats; centroid [head_dim][16] and channel [head_dim], bytes.
constexpr int RecallTableBytes(int head_dim) { return head_dim * 25; }

struct RecallJob {
  const uint8_t* codes = nullptr;        // [tiles][groups][8]
  const char* tables = nullptr;          // [segments][RecallTableBytes]
  const RecallPart* parts = nullptr;     // [part_count]
  const float* q = nullptr;              // [queries][head_dim]
  const float* exact = nullptr;          // [queries][positions - coded]: q.k of the rows without codes
  const uint32_t* candidates = nullptr;  // a bit for each position; at least one is set
  const int32_t* held = nullptr;         // [held_count] candidates, ascending: told whether they are found or not
  float* estimate = nullptr;             // [queries][positions] q.k
  uint32_t* rank = nullptr;              // [positions]
  float* sums = nullptr;                 // [queries][kSums]
  int32_t* found = nullptr;              // [1 + count]: how many, and which, by ascending position
  float* row_estimate = nullptr;         // [queries][count + held_count] of those found, then of those held
  float* row_share = nullptr;            // likewise: their terms of the softmax, not normalised
  int32_t queries = 0, positions = 0, coded = 0, part_count = 0, count = 0, held_count = 0;

  // Of a query: the maximum of the scaled scores (log2) of candidates; the sum of the candidates' terms relative to it;
  // that of all rows' terms, none taken above e^60; that of candidates neither found nor held.
  static constexpr int kMaximum = 0, kCandidates = 1, kAll = 2, kRest = 3, kSums = 4;
};

// estimate. A CTA makes the tables of scores for four query heads, seven bits an entry, those of the four in a word:
// one look-up serves them all. As RoundScoreTable and EstimateProduct. Bytes: the codes once for four query heads, and
// a float for each score. Bound: look-ups in shared memory. grid: most parts, CeilDiv(queries, 4), jobs
struct ScanCodes {
  static constexpr int kThreads = 128;
  static constexpr int kTiles = kThreads;  // of a part, at most
  static constexpr int kQueries = 4;
  static constexpr int kMostGroups = 64;
  static constexpr int kWidth = 4;
  struct Args {
    const RecallJob* jobs = nullptr;
    int32_t head_dim = 0;
  };
  struct Shared {
    SharedArray<uint32_t, kMostGroups * 16> entry;  // a byte for each query
    SharedArray<float, kQueries * kMostGroups> low, range;
    SharedArray<float, kQueries> offset, step;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const RecallJob job = args.jobs[cta.z()];
    const int first_query = cta.y() * kQueries, thread = cta.thread();
    if (cta.x() >= job.part_count || first_query >= job.queries) return;
    const RecallPart part = job.parts[cta.x()];
    const int queries = job.queries - first_query < kQueries ? job.queries - first_query : kQueries;
    if (part.segment < 0) {
      const int32_t count = job.positions - job.coded;
      for (int32_t i = thread; i < queries * count; i += kThreads) {
        const int64_t query = first_query + i / count;
        job.estimate[query * job.positions + job.coded + i % count] = job.exact[query * count + i % count];
      }
      return;
    }
    const int groups = args.head_dim / kWidth;
    const Tables tables(job.tables + static_cast<int64_t>(part.segment) * RecallTableBytes(args.head_dim),
                        args.head_dim);
    const float* q = job.q + static_cast<int64_t>(first_query) * args.head_dim;
    for (int i = thread; i < queries * groups; i += kThreads) {
      const float* query = q + i / groups * args.head_dim;
      float low = INFINITY, high = -INFINITY, poison = 0;  // not a number when an entry is not one, or infinite
      for (int c = 0; c < 16; ++c) {
        const float entry = tables.Entry(query, i % groups, c);
        low = entry < low ? entry : low;
        high = entry > high ? entry : high;
        poison += entry * 0;
      }
      shared.low[i] = low;
      shared.range[i] = high - low + poison;
    }
    cta.Sync();
    if (thread < queries) {
      float offset = 0, widest = 0;
      for (int g = 0; g < groups; ++g) {
        const float range = shared.range[thread * groups + g];
        offset += shared.low[thread * groups + g];
        widest = range <= widest ? widest : range;  // stays not a number
        if (!(widest == widest)) break;
      }
      const float step = widest / kMost;
      shared.offset[thread] = offset;
      shared.step[thread] = step > 0 && step < INFINITY ? step : 0.0f;
    }
    cta.Sync();
    for (int i = thread; i < groups * 16; i += kThreads) {
      uint32_t word = 0;
      for (int j = 0; j < queries; ++j) {
        const float step = shared.step[j];
        if (step == 0) continue;
        const float level =
            (tables.Entry(q + j * args.head_dim, i / 16, i % 16) - shared.low[j * groups + i / 16]) * (1 / step) + 0.5f;
        word |= static_cast<uint32_t>(level < kMost ? level : kMost) << (8 * j);
      }
      shared.entry[i] = word;
    }
    cta.Sync();
    if (thread >= part.tiles) return;
    const int64_t tile = part.first_tile + thread;
    const uint8_t* codes = job.codes + tile * groups * 8;
    uint32_t even[16] = {}, odd[16] = {};  // two queries' sums each, below 2^16
    for (int g = 0; g < groups; g += 2) {
      const Words4 words = StreamWords(codes + g * 8);
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int i = 0; i < 16; ++i) {
        const uint32_t byte = words.w[i / 4] >> (i % 4 * 8) & 255;
        const int row = i % 8, base = (g + i / 8) * 16;
        const uint32_t first = shared.entry[base + (byte & 15)], second = shared.entry[base + (byte >> 4)];
        even[row] += first & 0x00ff00ff;
        odd[row] += first >> 8 & 0x00ff00ff;
        even[row + 8] += second & 0x00ff00ff;
        odd[row + 8] += second >> 8 & 0x00ff00ff;
      }
    }
    for (int j = 0; j < queries; ++j) {
      const float offset = shared.offset[j], step = shared.step[j];
      float* out = job.estimate + static_cast<int64_t>(first_query + j) * job.positions;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int row = 0; row < 16; ++row) {
        const uint32_t sum = (j % 2 == 0 ? even[row] : odd[row]) >> (j / 2 * 16) & 0xffff;
        if (tile * 16 + row < job.positions) out[tile * 16 + row] = offset + step * static_cast<float>(sum);
      }
    }
  }

 private:
  static constexpr float kMost = 127;

  struct Tables {
    TP_KERNEL Tables(const char* at, int head_dim)
        : offset(reinterpret_cast<const float*>(at)),
          scale(offset + head_dim),
          centroid(reinterpret_cast<const uint8_t*>(scale + head_dim)),
          channel(centroid + head_dim * 16) {}
    // What centroid c of group g adds to q.k.
    TP_KERNEL float Entry(const float* query, int g, int c) const {
      float constant = 0;
      for (int i = g * kWidth; i < (g + 1) * kWidth; ++i) constant += query[channel[i]] * offset[i];
      for (int i = g * kWidth; i < (g + 1) * kWidth; ++i) {
        constant += query[channel[i]] * scale[i] * static_cast<float>(centroid[i * 16 + c]);
      }
      return constant;
    }

    const float *offset, *scale;
    const uint8_t *centroid, *channel;
  };
};

TP_KERNEL bool IsCandidate(const RecallJob& job, int32_t position) {
  return (job.candidates[position / 32] >> (position % 32) & 1) != 0;
}
// A row's term of a query's softmax.
TP_KERNEL float RecallTerm(float scaled, float maximum) {
  const float y = scaled - maximum;
  return Exp2(y < -120.0f ? -120.0f : y > 60 * 1.44269504f ? 60 * 1.44269504f : y);
}

// sums but for the rest, a CTA for a query of a job. Bytes: its scores, twice, from the second-level cache. Bound:
// that cache, by one multiprocessor. grid: most queries, jobs
struct SumShares {
  static constexpr int kThreads = 512;
  static constexpr int kWarps = kThreads / 32;
  struct Args {
    const RecallJob* jobs = nullptr;
    float scale = 0;  // of scores, to log2
  };
  struct Shared {
    SharedArray<float, kWarps> most, chosen, all;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const RecallJob job = args.jobs[cta.y()];
    const int query = cta.x(), lane = cta.thread() % 32, warp = cta.thread() / 32;
    if (query >= job.queries) return;
    const float* x = job.estimate + static_cast<int64_t>(query) * job.positions;
    float most = -INFINITY;
    for (int32_t i = cta.thread(); i < job.positions; i += kThreads) {
      const float scaled = x[i] * args.scale;
      if (IsCandidate(job, i) && scaled > most) most = scaled;
    }
    most = cta.WarpMax(most);
    if (lane == 0) shared.most[warp] = most;
    cta.Sync();
    for (int w = 0; w < kWarps; ++w) most = shared.most[w] > most ? static_cast<float>(shared.most[w]) : most;
    float chosen = 0, all = 0;
    for (int32_t i = cta.thread(); i < job.positions; i += kThreads) {
      const float term = RecallTerm(x[i] * args.scale, most);
      all += term;
      if (IsCandidate(job, i)) chosen += term;
    }
    chosen = cta.WarpSum(chosen);
    all = cta.WarpSum(all);
    if (lane == 0) {
      shared.chosen[warp] = chosen;
      shared.all[warp] = all;
    }
    cta.Sync();
    if (cta.thread() != 0) return;
    chosen = all = 0;
    for (int w = 0; w < kWarps; ++w) {
      chosen += shared.chosen[w];
      all += shared.all[w];
    }
    float* sums = job.sums + query * RecallJob::kSums;
    sums[RecallJob::kMaximum] = most;
    sums[RecallJob::kCandidates] = chosen;
    sums[RecallJob::kAll] = all;
  }
};

// The `count` best candidates of a job, of equal ones the first, and what is told of them: a CTA for a job. The weight
// of the last one is found four bits at a time, by counting. Bytes: scores three times and weights ten times, from the
// second-level cache. Bound: that cache, by one multiprocessor. grid: jobs
struct FindBestRows {
  static constexpr int kThreads = 512;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kDigits = 15;  // a digit that is not 0
  struct Args {
    const RecallJob* jobs = nullptr;
    float scale = 0;  // of scores, to log2
  };
  struct Shared {
    SharedArray<float, 2 * kWarps * kDigits> counts;  // of rounds in turn
    SharedArray<float, kWarps> above, equal;
    SharedArray<float, 2 * kWarps> rest;  // of queries in turn
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const RecallJob job = args.jobs[cta.x()];
    const int lane = cta.thread() % 32, warp = cta.thread() / 32;
    // A warp has neighbouring rows, a lane every 32nd of them.
    const int32_t each = CeilDiv(CeilDiv(job.positions, 32), kWarps) * 32, first = warp * each;
    const int32_t end = first + each < job.positions ? first + each : job.positions;
    for (int32_t i = first + lane; i < end; i += 32) job.rank[i] = IsCandidate(job, i) ? RankOf(job, args, i) : 0;

    // The largest rank that `count` rows have or exceed; where candidates are fewer, 1: all of them.
    uint32_t last = 0;
    for (int shift = 28; shift >= 0; shift -= 4) {
      float counts[kDigits] = {};
      for (int32_t i = first + lane; i < end; i += 32) {
        const uint32_t rank = job.rank[i];
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int d = 0; d < kDigits; ++d) counts[d] += rank >= (last | static_cast<uint32_t>(d + 1) << shift) ? 1 : 0;
      }
      cta.template GroupSum<32>(counts);
      const int turn = shift / 4 % 2 * kWarps * kDigits;
      if (lane == 0) {
        for (int d = 0; d < kDigits; ++d) shared.counts[turn + warp * kDigits + d] = counts[d];
      }
      cta.Sync();
      float rows = 0;
      for (int w = 0; w < kWarps && lane < kDigits; ++w) rows += shared.counts[turn + w * kDigits + lane];
      const float digit = cta.WarpMax(lane < kDigits && rows >= static_cast<float>(job.count) ? lane + 1.0f : 0.0f);
      last |= static_cast<uint32_t>(digit) << shift;
    }
    if (last == 0) last = 1;

    float found[2] = {};  // above the last one's rank, and at it
    for (int32_t i = first + lane; i < end; i += 32) {
      found[0] += job.rank[i] > last ? 1 : 0;
      found[1] += job.rank[i] == last ? 1 : 0;
    }
    cta.template GroupSum<32>(found);
    if (lane == 0) {
      shared.above[warp] = found[0];
      shared.equal[warp] = found[1];
    }
    cta.Sync();
    int32_t above = 0, equal = 0, all_above = 0, all_equal = 0;  // before this warp's rows, and in all
    for (int w = 0; w < kWarps; ++w) {
      if (w == warp) {
        above = all_above;
        equal = all_equal;
      }
      all_above += static_cast<int32_t>(shared.above[w]);
      all_equal += static_cast<int32_t>(shared.equal[w]);
    }
    const int32_t room = job.count - all_above, taken = all_equal < room ? all_equal : room;  // of the equal ones
    if (cta.thread() == 0) job.found[0] = all_above + taken;
    for (int32_t base = first; base < end; base += 32) {
      const int32_t i = base + lane;
      const uint32_t rank = i < end ? job.rank[i] : 0, before = (1u << lane) - 1;
      const uint32_t is_above = cta.WarpBits(rank > last), is_equal = cta.WarpBits(rank == last);
      const int32_t equals = equal + CountBits(is_equal & before);
      if (rank > last || (rank == last && equals < taken)) {
        const int32_t place = above + CountBits(is_above & before) + (equals < taken ? equals : taken);
        job.found[1 + place] = i;
        Tell(job, args, i, place);
      }
      above += CountBits(is_above);
      equal += CountBits(is_equal);
    }
    cta.Sync();
    for (int32_t h = cta.thread(); h < job.held_count; h += kThreads) Tell(job, args, job.held[h], job.count + h);
    cta.Sync();

    for (int query = 0; query < job.queries; ++query) {
      const float* x = job.estimate + static_cast<int64_t>(query) * job.positions;
      const float maximum = job.sums[query * RecallJob::kSums + RecallJob::kMaximum];
      float rest = 0;
      for (int32_t i = first + lane; i < end; i += 32) {
        if (job.rank[i] != 0 && job.rank[i] != kTold) rest += RecallTerm(x[i] * args.scale, maximum);
      }
      rest = cta.WarpSum(rest);
      const int turn = query % 2 * kWarps;
      if (lane == 0) shared.rest[turn + warp] = rest;
      cta.Sync();
      if (cta.thread() != 0) continue;
      rest = 0;
      for (int w = 0; w < kWarps; ++w) rest += shared.rest[turn + w];
      job.sums[query * RecallJob::kSums + RecallJob::kRest] = rest;
    }
  }

 private:
  static constexpr uint32_t kTold = 0xffffffff;  // no weight's rank

  // Weights in their order: 1 for 0 and what is not a number.
  TP_KERNEL static uint32_t RankOf(const RecallJob& job, const Args& args, int32_t i) {
    float weight = 0;
    for (int query = 0; query < job.queries; ++query) {
      const float* sums = job.sums + query * RecallJob::kSums;
      const float x = job.estimate[static_cast<int64_t>(query) * job.positions + i];
      const float factor = 1 / (sums[RecallJob::kCandidates] * static_cast<float>(job.queries));
      weight += factor * RecallTerm(x * args.scale, sums[RecallJob::kMaximum]);
    }
    uint32_t bits;
    memcpy(&bits, &weight, sizeof bits);
    return weight > 0 ? bits + 1 : 1;
  }
  TP_KERNEL static void Tell(const RecallJob& job, const Args& args, int32_t i, int32_t place) {
    for (int query = 0; query < job.queries; ++query) {
      const float x = job.estimate[static_cast<int64_t>(query) * job.positions + i];
      const int64_t to = static_cast<int64_t>(query) * (job.count + job.held_count) + place;
      job.row_estimate[to] = x;
      job.row_share[to] = RecallTerm(x * args.scale, job.sums[query * RecallJob::kSums + RecallJob::kMaximum]);
    }
    job.rank[i] = kTold;
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_RECALL_BODY_H_
