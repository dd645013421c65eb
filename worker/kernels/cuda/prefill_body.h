// Attention of many tokens at once, over slot pages, on the tensor cores (FlashAttention, arXiv 2205.14135): scores
// never leave the registers.
//
// A row is seen from a query on, its slot's birth: rows of earlier steps by all, a row of this step from its own query.
// Bound: arithmetic, 4 * head_dim operations for each (query, row).
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_

#include "worker/kernels/cuda/attend_body.h"

namespace tidepool::cuda {

inline constexpr int32_t kNeverVisible = 0x7fffffff;
inline constexpr int kTileTokens = 16;  // queries of a warp

// births[kv_head][slot]: the first query of the slice that sees a slot; -1: all do; kNeverVisible: free. First by page
// (grid: most pages, kv_heads), then by new row (grid: CeilDiv(new_count, kThreads), kv_heads).
struct MarkBirths {
  static constexpr int kThreads = 128;
  struct Args {
    const HeadPages* heads = nullptr;  // [kv_heads]
    int32_t* births = nullptr;         // [kv_heads][stride]
    int64_t stride = 0;
    // The second launch: the slots of the queries' own rows.
    const int32_t* new_slots = nullptr;  // [kv_heads][new_stride]
    int64_t new_stride = 0;
    int32_t new_count = 0;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    int32_t* births = args.births + cta.y() * args.stride;
    const int i = cta.x() * kThreads + cta.thread();
    if (args.new_slots != nullptr) {
      if (i < args.new_count) births[args.new_slots[cta.y() * args.new_stride + i]] = i;
      return;
    }
    const HeadPages& head = args.heads[cta.y()];
    if (i >= head.pages * kSlotsOfPage) return;
    births[i] = (head.entries[i / kSlotsOfPage].valid >> i % kSlotsOfPage & 1) != 0 ? -1 : kNeverVisible;
  }
};

struct PrefillArgs {
  PageMemoryView memory;
  const HeadPages* heads = nullptr;  // [kv_heads] of the slice
  const int32_t* births = nullptr;   // [kv_heads][birth_stride]
  int64_t birth_stride = 0;
  const uint16_t* q = nullptr;  // [tokens][query_heads][head_dim]
  int32_t tokens = 0, query_heads = 0, kv_heads = 0;
  float scale = 0;           // 1 / sqrt(head_dim)
  float* out = nullptr;      // as q
  float* log_sum = nullptr;  // [query_heads][tokens] log2 of the sum of exp(score)
};

// Pieces of both kernels below. Lane 4 e + q of a warp: e its eighth, q its quarter.
template <int kLanes>
struct PrefillTile {
  static constexpr int kDims = kLanes * 8;
  static constexpr int kChunks = kDims < 32 ? 1 : kDims / 32;  // of 8 channels, of a lane: the q-th of every four

  // 8 channels of rows first + e and first + 8 + e of q: what a product wants of them twice.
  struct Queries {
    uint32_t words[kChunks][2][4];
  };
  struct Keys {
    uint32_t words[kChunks][2][4];
  };

  // A channel that exists in the place of one that does not: no load waits for a branch. Queries are 0 there, and
  // results are not used.
  TP_KERNEL static int Existing(int channel, int head_dim) { return channel < head_dim ? channel : 0; }

  TP_KERNEL static void LoadQueries(const PrefillArgs& args, int head, int first, int lane, Queries& out) {
    const int head_dim = args.memory.head_dim;
    for (int half = 0; half < 2; ++half) {
      const int token = first + lane / 4 + 8 * half, existing = token < args.tokens ? token : args.tokens - 1;
      const uint16_t* row = args.q + (static_cast<int64_t>(existing) * args.query_heads + head) * head_dim;
      for (int c = 0; c < kChunks; ++c) {
        const int channel = (4 * c + lane % 4) * 8;
        const Words4 chunk = LoadWords(row + Existing(channel, head_dim));
        for (int i = 0; i < 4; ++i) out.words[c][i / 2][i % 2 * 2 + half] = channel < head_dim ? chunk.w[i] : 0;
      }
    }
  }

  // Rows e and 8 + e of a page.
  TP_KERNEL static void LoadKeys(const uint16_t* keys, int head_dim, int lane, Keys& out) {
    for (int half = 0; half < 2; ++half) {
      const uint16_t* row = keys + (lane / 4 + 8 * half) * head_dim;
      for (int c = 0; c < kChunks; ++c) {
        const Words4 chunk = LoadWords(row + Existing((4 * c + lane % 4) * 8, head_dim));
        for (int i = 0; i < 4; ++i) out.words[c][half][i] = chunk.w[i];
      }
    }
  }

  // scores[half][i]: of token e + 8 (i / 2) and slot 8 half + 2 q + i % 2.
  template <class Cta>
  TP_KERNEL static void Scores(Cta& cta, const Queries& queries, const Keys& keys, float (&scores)[2][4]) {
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) scores[half][i] = 0;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int c = 0; c < kChunks; ++c) {
        for (int i = 0; i < 2; ++i) {
          const uint32_t b[2] = {keys.words[c][half][2 * i], keys.words[c][half][2 * i + 1]};
          cta.MultiplyHalves(queries.words[c][i], b, scores[half]);
        }
      }
    }
  }
};

// out = softmax(q k) v. A warp for 16 tokens of a query head; those of a CTA share a kv head, and by and large their
// pages: the heads of a group first. grid: CeilDiv(group * CeilDiv(tokens, kTileTokens), kWarps), kv_heads
template <int kLanes>
struct FlashPrefill {
  using Tile = PrefillTile<kLanes>;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kSegments = Tile::kDims < 64 ? 1 : Tile::kDims / 64;  // of 64 channels, 8 for each eighth
  using Args = PrefillArgs;
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int group = args.query_heads / args.kv_heads, lane = cta.thread() % 32, kv_head = cta.y();
    const int unit = cta.x() * kWarps + cta.thread() / 32, first = unit / group * kTileTokens;
    if (first >= args.tokens) return;  // the whole warp
    const int query_head = kv_head * group + unit % group, head_dim = args.memory.head_dim;
    const HeadPages head = args.heads[kv_head];
    const int32_t* births = args.births + kv_head * args.birth_stride;
    State state;
    Tile::LoadQueries(args, query_head, first, lane, state.queries);
    // A page's values are on their way while its scores are computed, and the next page's keys behind them.
    Page page = NextPage(cta, head, births, 0, first, lane);
    typename Tile::Keys keys;
    LoadKeys(args, page, head.pages, lane, keys);
    while (page.index < head.pages) {
      Words4 values[kSegments][4];
      LoadValues(args, page, lane, values);
      const Page next = NextPage(cta, head, births, page.index + 1, first, lane);
      float scores[2][4];
      Tile::Scores(cta, state.queries, keys, scores);
      LoadKeys(args, next, head.pages, lane, keys);
      uint32_t weights[4];  // two slots of a token to a word
      Softmax(cta, page.birth, first + lane / 4, args.scale * kLog2E, scores, weights, state);
      AddValues(cta, weights, values, state);
      page = next;
    }
    cta.template GroupSum<4>(state.sum);
    for (int half = 0; half < 2; ++half) {
      const int token = first + lane / 4 + 8 * half;
      if (token >= args.tokens) continue;
      const float factor = 1.0f / state.sum[half];
      float* out = args.out + (static_cast<int64_t>(token) * args.query_heads + query_head) * head_dim;
      for (int s = 0; s < kSegments; ++s) {
        for (int next = 0; next < 2; ++next) {
          const int channel = (8 * s + 2 * (lane % 4) + next) * 8;
          if (channel >= head_dim) continue;
          for (int j = 0; j < 8; ++j) out[channel + j] = state.out[s][j][2 * half + next] * factor;
        }
      }
      if (lane % 4 == 0) {
        args.log_sum[static_cast<int64_t>(query_head) * args.tokens + token] =
            state.maximum[half] + log2f(state.sum[half]);
      }
    }
  }

 private:
  struct State {
    typename Tile::Queries queries;
    float maximum[2] = {kNoScore, kNoScore};  // of the tokens e and e + 8, of score * log2 e
    float sum[2] = {0, 0};                    // of this lane's slots
    float out[kSegments][8][4] = {};          // [..][j]: channels 8 (8 s + 2 q + i % 2) + j of token e + 8 (i / 2)
  };

  struct Page {
    int index;
    PageEntry entry;
    int birth[4];  // of slots 2 q, 2 q + 1, 8 + 2 q, 9 + 2 q
  };

  // The first page from `index` on of which the queries from `first` on see a row.
  template <class Cta>
  TP_KERNEL static Page NextPage(Cta& cta, const HeadPages& head, const int32_t* births, int index, int first,
                                 int lane) {
    Page page;
    for (page.index = index; page.index < head.pages; ++page.index) {
      page.entry = head.entries[page.index];
      if (page.entry.valid == 0) continue;
      bool seen = false;
      for (int i = 0; i < 4; ++i) {
        page.birth[i] = births[page.index * kSlotsOfPage + 2 * (lane % 4) + i % 2 + i / 2 * 8];
        seen = seen || page.birth[i] < first + kTileTokens;
      }
      if (cta.WarpAny(seen)) break;
    }
    return page;
  }

  TP_KERNEL static void LoadKeys(const Args& args, const Page& page, int pages, int lane, typename Tile::Keys& keys) {
    if (page.index >= pages) return;
    Tile::LoadKeys(args.memory.Keys(page.entry.page), args.memory.head_dim, lane, keys);
  }

  TP_KERNEL static void LoadValues(const Args& args, const Page& page, int lane, Words4 (&values)[kSegments][4]) {
    const int head_dim = args.memory.head_dim, somebody = LowestBit(page.entry.valid);
    const uint16_t* from = args.memory.Values(page.entry.page);
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int s = 0; s < kSegments; ++s) {
      for (int i = 0; i < 4; ++i) {
        const int of = 2 * (lane % 4) + i % 2 + i / 2 * 8;
        // Free slots hold anything, and 0 times anything may be NaN: another row in their place.
        const int row = (page.entry.valid >> of & 1) != 0 ? of : somebody;
        values[s][i] = LoadWords(from + row * head_dim + Tile::Existing((8 * s + lane / 4) * 8, head_dim));
      }
    }
  }

  template <class Cta>
  TP_KERNEL static void AddValues(Cta& cta, const uint32_t (&weights)[4], const Words4 (&values)[kSegments][4],
                                  State& state) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int s = 0; s < kSegments; ++s) {
      const Words4(&rows)[4] = values[s];
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int j = 0; j < 8; ++j) {
        const int w = j / 2;
        const uint32_t b[2] = {
            j % 2 == 0 ? LowHalves(rows[0].w[w], rows[1].w[w]) : HighHalves(rows[0].w[w], rows[1].w[w]),
            j % 2 == 0 ? LowHalves(rows[2].w[w], rows[3].w[w]) : HighHalves(rows[2].w[w], rows[3].w[w])};
        cta.MultiplyHalves(weights, b, state.out[s][j]);
      }
    }
  }

  // Of the tokens `token` and token + 8.
  template <class Cta>
  TP_KERNEL static void Softmax(Cta& cta, const int (&birth)[4], int token, float scale, float (&scores)[2][4],
                                uint32_t (&weights)[4], State& state) {
    float maximum[2] = {state.maximum[0], state.maximum[1]};
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {
        const bool visible = birth[2 * half + i % 2] <= token + i / 2 * 8;
        scores[half][i] = visible ? scores[half][i] * scale : kNoScore;
        maximum[i / 2] = fmaxf(maximum[i / 2], scores[half][i]);
      }
    }
    cta.template GroupMax<4>(maximum);
    for (int of = 0; of < 2; ++of) {
      if (maximum[of] == state.maximum[of]) continue;
      const float kept = Exp2(state.maximum[of] - maximum[of]);
      state.maximum[of] = maximum[of];
      state.sum[of] *= kept;
      for (int s = 0; s < kSegments; ++s) {
        for (int j = 0; j < 8; ++j) {
          state.out[s][j][2 * of] *= kept;
          state.out[s][j][2 * of + 1] *= kept;
        }
      }
    }
    for (int half = 0; half < 2; ++half) {
      for (int of = 0; of < 2; ++of) {
        float weight[2];
        for (int i = 0; i < 2; ++i) {
          const float score = scores[half][2 * of + i];
          weight[i] = score == kNoScore ? 0.0f : Exp2(score - maximum[of]);
          state.sum[of] += weight[i];
        }
        weights[2 * half + of] = ToHalves(weight[0], weight[1]);
      }
    }
  }
};

// sums[g][slot] = the probabilities that the queries of a head give a slot, in float32: a second pass, by log_sum.
// A CTA for a page and a query head; its warps take turns at the tokens. grid: pages, group
template <int kLanes>
struct FlashColumnSums {
  using Tile = PrefillTile<kLanes>;
  static constexpr int kThreads = 128;
  static constexpr int kWarps = kThreads / 32;
  struct Args {
    PrefillArgs prefill;
    int32_t kv_head = 0;
    float* sums = nullptr;  // [group][pages * kSlotsOfPage]
  };
  struct Shared {
    SharedArray<float, kWarps * kSlotsOfPage> sums;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const PrefillArgs& of = args.prefill;
    const int page = cta.x(), lane = cta.thread() % 32, warp = cta.thread() / 32, slot = 2 * (lane % 4);
    const HeadPages& head = of.heads[args.kv_head];
    const PageEntry entry = head.entries[page];
    const int query_head = args.kv_head * (of.query_heads / of.kv_heads) + cta.y();
    const float* log_sum = of.log_sum + static_cast<int64_t>(query_head) * of.tokens;
    const int32_t* births = of.births + args.kv_head * of.birth_stride + page * kSlotsOfPage;
    int birth[4];
    for (int i = 0; i < 4; ++i) birth[i] = births[slot + i % 2 + i / 2 * 8];
    float sums[4] = {};
    if (entry.valid != 0) {  // of the whole CTA
      typename Tile::Keys keys;
      Tile::LoadKeys(of.memory.Keys(entry.page), of.memory.head_dim, lane, keys);
      for (int first = warp * kTileTokens; first < of.tokens; first += kWarps * kTileTokens) {
        typename Tile::Queries queries;
        Tile::LoadQueries(of, query_head, first, lane, queries);
        float scores[2][4];
        Tile::Scores(cta, queries, keys, scores);
        for (int half = 0; half < 2; ++half) {
          for (int i = 0; i < 4; ++i) {
            const int token = first + lane / 4 + i / 2 * 8;
            if (token >= of.tokens || birth[2 * half + i % 2] > token) continue;
            sums[2 * half + i % 2] += Exp2(scores[half][i] * of.scale * kLog2E - log_sum[token]);
          }
        }
      }
    }
    cta.template CrossSum<4>(sums);
    if (lane < 4) {
      for (int i = 0; i < 4; ++i) shared.sums[warp * kSlotsOfPage + slot + i % 2 + i / 2 * 8] = sums[i];
    }
    cta.Sync();
    if (cta.thread() >= kSlotsOfPage) return;
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += shared.sums[w * kSlotsOfPage + cta.thread()];
    args.sums[(static_cast<int64_t>(cta.y()) * head.pages + page) * kSlotsOfPage + cta.thread()] = sum;
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_
