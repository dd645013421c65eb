// Merges neighbouring symbols of a text, best rank first, leftmost first among equals: the loop that byte-level BPE and
// SentencePiece BPE share. O(n log n) for any text, by a heap of candidate pairs; a candidate whose symbols have
// changed since is recognised by its size and dropped.
#ifndef TIDEPOOL_WORKER_MODEL_SYMBOL_MERGER_H_
#define TIDEPOOL_WORKER_MODEL_SYMBOL_MERGER_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidepool {

// A stretch of the text. `size` 0: it was merged into an earlier symbol. Texts are below 4 GiB (kMaxPromptBytes is 4
// MiB).
struct Symbol {
  uint32_t begin = 0;
  uint32_t size = 0;
  int32_t token = -1;  // -1: not in the vocabulary
  int32_t previous = -1, next = -1;
};

class SymbolMerger {
 public:
  struct Merged {
    uint32_t rank = 0;   // smaller merges first
    int32_t token = -1;  // -1: the pair does not merge
  };

  // The symbols of the text to merge, in order. Kept between texts to reuse the memory.
  void Clear() { symbols_.clear(); }
  void Add(uint32_t begin, uint32_t size, int32_t token) {
    const int32_t index = static_cast<int32_t>(symbols_.size());
    if (index > 0) symbols_.back().next = index;
    symbols_.push_back({begin, size, token, index - 1, -1});
  }
  bool empty() const { return symbols_.empty(); }

  // find(left, right) -> Merged says whether two neighbours merge.
  template <typename Find>
  void Merge(Find find) {
    heap_.clear();
    for (size_t i = 0; i + 1 < symbols_.size(); ++i) Offer(static_cast<int32_t>(i), find, /*sift=*/false);
    std::make_heap(heap_.begin(), heap_.end(), Later);
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), Later);
      const Candidate best = heap_.back();
      heap_.pop_back();
      Symbol& left = symbols_[best.left];
      if (left.size == 0 || left.next < 0) continue;
      Symbol& right = symbols_[left.next];
      if (left.size + right.size != best.size) continue;
      left.size = best.size;
      left.token = best.token;
      left.next = right.next;
      right.size = 0;
      if (left.next >= 0) symbols_[left.next].previous = best.left;
      if (left.previous >= 0) Offer(left.previous, find, /*sift=*/true);
      if (left.next >= 0) Offer(best.left, find, /*sift=*/true);
    }
  }

  // Calls visit(symbol) for each symbol that is left, in order.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[i].next) visit(symbols_[i]);
  }

 private:
  struct Candidate {
    uint32_t rank;
    int32_t left;   // index of the left symbol; the right one is its neighbour
    uint32_t size;  // of both: shows whether they are still the pair that was offered
    int32_t token;
  };
  static bool Later(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  }

  template <typename Find>
  void Offer(int32_t left, Find& find, bool sift) {
    const Symbol& a = symbols_[left];
    const Symbol& b = symbols_[a.next];
    const Merged merged = find(a, b);
    if (merged.token < 0) return;
    heap_.push_back({merged.rank, left, a.size + b.size, merged.token});
    if (sift) std::push_heap(heap_.begin(), heap_.end(), Later);
  }

  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_SYMBOL_MERGER_H_
