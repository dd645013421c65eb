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
    Words4 chunks[2][kChunks];
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
  TP_KERNEL static void LoadKeys(const PageMemoryView& memory, const PageEntry& entry, int lane, Keys& out) {
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + 8 * half;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int c = 0; c < kChunks; ++c) {
        const int channel = Existing((4 * c + lane % 4) * 8, memory.head_dim);
        if (entry.precision == KvPrecision::kF16) {
          out.chunks[half][c] = LoadWords(memory.Keys(entry.place) + row * memory.head_dim + channel);
        } else {
          const PackedRows packed(memory, entry.place, entry.precision, channel);
          out.chunks[half][c] = packed.HalvesOf(false, entry.half * kSlotsOfPage + row);
        }
      }
    }
  }

  // scores[half][i]: of token e + 8 (i / 2) and slot 8 half + 2 q + i % 2. key(half, c): chunk 4 c + q of slot
  // 8 half + e.
  template <class Cta, class Key>
  TP_KERNEL static void Scores(Cta& cta, const Queries& queries, Key&& key, float (&scores)[2][4]) {
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) scores[half][i] = 0;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int c = 0; c < kChunks; ++c) {
        const Words4 chunk = key(half, c);
        for (int i = 0; i < 2; ++i) {
          const uint32_t b[2] = {chunk.w[2 * i], chunk.w[2 * i + 1]};
          cta.MultiplyHalves(queries.words[c][i], b, scores[half]);
        }
      }
    }
  }
};

// out = softmax(q k) v. A warp for 16 tokens of a query head; those of a CTA share a kv head, and by and large their
// tokens: the heads of a group first. Pages come through shared memory, several on their way at a time.
// kPacked: some pages are packed; their rows are made halves on the way.
// grid: CeilDiv(group * CeilDiv(tokens, kTileTokens), kWarps), kv_heads
template <int kLanes, bool kPacked>
struct FlashPages {
  using Tile = PrefillTile<kLanes>;
  static constexpr int kThreads = 128;
  static constexpr int kCtasAtOnce = kLanes <= 16 ? 3 : 2;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kSegments = Tile::kDims < 64 ? 1 : Tile::kDims / 64;  // of 64 channels, 8 for each eighth
  static constexpr int kStages = kLanes <= 16 ? 5 : 2;                       // pages in shared memory
  static constexpr int kPageChunks = kSlotsOfPage * kLanes;                  // of K or V, 8 channels each
  static constexpr int kRowsAtOnce = kThreads / kLanes;                      // that the threads fetch
  using Args = PrefillArgs;
  struct Shared {
    SharedArray<Words4, kStages * 2 * kPageChunks> rows;  // [stage][K, V][slot][chunk]: Place
    SharedArray<Words4, kStages * kSlotsOfPage / 4> births;
    SharedArray<PageEntry, kThreads> entries;  // of the next pages; those that are not seen without a row
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int group = args.query_heads / args.kv_heads, lane = cta.thread() % 32, kv_head = cta.y();
    const int unit = cta.x() * kWarps + cta.thread() / 32, first = unit / group * kTileTokens;
    const int query_head = kv_head * group + unit % group;
    const HeadPages head = args.heads[kv_head];
    const int32_t* births = args.births + kv_head * args.birth_stride;
    // Of all warps, so that they go through the same pages.
    const int end = ((cta.x() + 1) * kWarps - 1) / group * kTileTokens + kTileTokens;
    State state;
    Tile::LoadQueries(args, query_head, first < args.tokens ? first : 0, lane, state.queries);

    // Eight chunks on lie eight places on, and so does a row of eight rows on.
    for (int i = 0; i < 2; ++i) {
      state.key_place[i] = Place(lane / 4, 4 * i + lane % 4);
      state.value_place[i] = kPageChunks + Place(2 * (lane % 4) + i, lane / 4);
    }

    int next = NextPage(cta, shared, head, births, 0, end), left = 0;  // fetched, not yet added
#ifdef __CUDACC__
#pragma unroll 1
#endif
    for (int stage = 0; stage + 1 < kStages; ++stage) Fetch(cta, shared, args, head, births, end, stage, next, left);
    for (int stage = 0; left > 0; --left) {
      cta.template WaitForCopies<kStages - 2>();
      cta.Sync();  // it is here, and the one before is no longer read
      Fetch(cta, shared, args, head, births, end, stage == 0 ? kStages - 1 : stage - 1, next, left);
      AddPage(cta, shared, stage, args, first, lane, state);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    cta.template GroupSum<4>(state.sum);
    for (int half = 0; half < 2; ++half) {
      const int token = first + lane / 4 + 8 * half;
      if (token < args.tokens) PutToken(args, query_head, token, half, lane, state);
    }
  }

 private:
  struct State {
    typename Tile::Queries queries;
    int key_place[2], value_place[2];         // of chunks q and 4 + q of slot e; of chunk e of slots 2 q and 2 q + 1
    float maximum[2] = {kNoScore, kNoScore};  // of the tokens e and e + 8, of score * log2 e
    float sum[2] = {0, 0};                    // of this lane's slots
    float out[kSegments][8][4] = {};          // [..][j]: channels 8 (8 s + 2 q + i % 2) + j of token e + 8 (i / 2)
  };

  // Where chunk `chunk` of a row lies: eight lanes that read at once, be it four chunks of two rows or two of four,
  // find them in different banks.
  TP_KERNEL static int Place(int row, int chunk) {
    const int turn = ((row >> 1 & 3) << 1 ^ (row & 1) << 2) & (kLanes - 1);
    return row * kLanes + (chunk < kLanes ? chunk ^ turn : 0);
  }

  // The first page from `index` on of which the queries before `end` see a row. By all threads, and for each index
  // once.
  template <class Cta>
  TP_KERNEL static int NextPage(Cta& cta, Shared& shared, const HeadPages& head, const int32_t* births, int index,
                                int end) {
    for (; index < head.pages; ++index) {
      if (index % kThreads == 0) LookAhead(cta, shared, head, births, index, end);
      if (static_cast<PageEntry>(shared.entries[index % kThreads]).valid != 0) break;
    }
    return index;
  }

  template <class Cta>
  TP_KERNEL static void LookAhead(Cta& cta, Shared& shared, const HeadPages& head, const int32_t* births, int index,
                                  int end) {
    const int page = index + cta.thread();
    PageEntry entry;
    if (page < head.pages) {
      entry = head.entries[page];
      bool seen = false;
      for (int part = 0; part < kSlotsOfPage / 4; ++part) {
        const Words4 four = LoadWords(births + page * kSlotsOfPage + part * 4);
        for (int i = 0; i < 4; ++i) seen = seen || static_cast<int>(four.w[i]) < end;
      }
      if (!seen) entry.valid = 0;
    }
    cta.Sync();  // nobody reads the former ones
    shared.entries[cta.thread()] = entry;
    cta.Sync();
  }

  // Puts page `next` on its way, if there is one. By all threads.
  template <class Cta>
  TP_KERNEL static void Fetch(Cta& cta, Shared& shared, const Args& args, const HeadPages& head, const int32_t* births,
                              int end, int stage, int& next, int& left) {
    if (next < head.pages) {
      const PageEntry entry = shared.entries[next % kThreads];
      const int head_dim = args.memory.head_dim;
      const int row = cta.thread() / kLanes, chunk = cta.thread() % kLanes;  // the first, of K and then V
      const uint16_t* from = args.memory.Keys(entry.place) + row * head_dim + chunk * 8;
      const bool packed = kPacked && entry.precision != KvPrecision::kF16;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int rows = 0; rows < 2 * kSlotsOfPage; rows += kRowsAtOnce) {
        if (kRowsAtOnce > 2 * kSlotsOfPage && row >= 2 * kSlotsOfPage) break;
        // Free slots hold anything, and 0 times anything may be NaN.
        const bool exists = (entry.valid >> (rows + row) % kSlotsOfPage & 1) != 0 && chunk * 8 < head_dim;
        const int to = stage * 2 * kPageChunks + Place(rows + row, chunk);
        if (packed) {
          shared.rows[to] = exists ? Expanded(args.memory, entry, rows + row, chunk) : Words4{};
        } else {
          cta.Copy(shared.rows, to, from + (exists ? rows * head_dim : 0), exists);
        }
      }
      if (cta.thread() < kSlotsOfPage / 4) {
        cta.Copy(shared.births, stage * kSlotsOfPage / 4 + cta.thread(),
                 births + next * kSlotsOfPage + cta.thread() * 4, true);
      }
      ++left;
      next = NextPage(cta, shared, head, births, next + 1, end);
    }
    cta.EndCopies();
  }

  // Chunk of a row of K, or behind kSlotsOfPage of V.
  TP_KERNEL static Words4 Expanded(const PageMemoryView& memory, const PageEntry& entry, int row, int chunk) {
    const PackedRows packed(memory, entry.place, entry.precision, chunk * 8);
    return packed.HalvesOf(row >= kSlotsOfPage, entry.half * kSlotsOfPage + row % kSlotsOfPage);
  }

  template <class Cta>
  TP_KERNEL static void AddPage(Cta& cta, Shared& shared, int stage, const Args& args, int first, int lane,
                                State& state) {
    const int quarter = lane % 4, eighth = lane / 4, page_at = stage * 2 * kPageChunks;
    int birth[4];  // of slots 2 q, 2 q + 1, 8 + 2 q, 9 + 2 q
    for (int half = 0; half < 2; ++half) {
      const Words4 four = shared.births[stage * kSlotsOfPage / 4 + half * 2 + quarter / 2];
      for (int i = 0; i < 2; ++i) birth[2 * half + i] = static_cast<int>(quarter % 2 == 0 ? four.w[i] : four.w[2 + i]);
    }
    float scores[2][4];
    auto key = [&](int half, int c) -> Words4 {
      return shared.rows[page_at + state.key_place[c % 2] + c / 2 * 8 + half * 8 * kLanes];
    };
    Tile::Scores(cta, state.queries, key, scores);
    uint32_t weights[4];  // two slots of a token to a word
    Softmax(cta, birth, first + eighth, args.scale * kLog2E, scores, weights, state);
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int s = 0; s < kSegments; ++s) {
      Words4 rows[4];
      for (int i = 0; i < 4; ++i) {
        rows[i] = shared.rows[page_at + state.value_place[i % 2] + 8 * s + i / 2 * 8 * kLanes];
      }
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

  TP_KERNEL static void PutToken(const Args& args, int query_head, int token, int half, int lane, const State& state) {
    const int head_dim = args.memory.head_dim;
    const float factor = 1.0f / state.sum[half];
    float* out = args.out + (static_cast<int64_t>(token) * args.query_heads + query_head) * head_dim;
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int s = 0; s < kSegments; ++s) {
      for (int next = 0; next < 2; ++next) {
        const int channel = (8 * s + 2 * (lane % 4) + next) * 8;
        if (channel >= head_dim) continue;
        for (int part = 0; part < 2; ++part) {
          float four[4];
          for (int i = 0; i < 4; ++i) four[i] = state.out[s][4 * part + i][2 * half + next] * factor;
          Words4 words;
          memcpy(&words, four, sizeof words);
          StoreWords(out + channel + 4 * part, words);
        }
      }
    }
    if (lane % 4 == 0) {
      args.log_sum[static_cast<int64_t>(query_head) * args.tokens + token] =
          state.maximum[half] + log2f(state.sum[half]);
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

template <int kLanes>
struct FlashPrefill : FlashPages<kLanes, false> {};
template <int kLanes>
struct FlashPacked : FlashPages<kLanes, true> {};

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
      Tile::LoadKeys(of.memory, entry, lane, keys);
      for (int first = warp * kTileTokens; first < of.tokens; first += kWarps * kTileTokens) {
        typename Tile::Queries queries;
        Tile::LoadQueries(of, query_head, first, lane, queries);
        float scores[2][4];
        Tile::Scores(
            cta, queries, [&](int half, int c) { return keys.chunks[half][c]; }, scores);
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
