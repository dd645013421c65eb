// The last few rotated queries of a sequence in every layer: the observation window of the SnapKV family. They straddle
// prefill chunks and turns, so they are remembered as they pass.
#ifndef TIDEPOOL_WORKER_KV_QUERY_RING_H_
#define TIDEPOOL_WORKER_KV_QUERY_RING_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace tidepool {

class QueryRing {
 public:
  // window: tokens remembered, >= 1. width: heads * head_dim floats for each token and layer.
  QueryRing(int layers, int window, int width)
      : window_(window), width_(width), count_(layers, 0), data_(static_cast<size_t>(layers) * window * width) {}

  int window() const { return window_; }
  int width() const { return width_; }
  int layers() const { return static_cast<int>(count_.size()); }
  // Tokens remembered in a layer: all up to `window`, then the last `window`.
  int tokens(int layer) const { return static_cast<int>(std::min<int64_t>(count_[layer], window_)); }
  int64_t seen(int layer) const { return count_[layer]; }

  void Push(int layer, const float* query) { std::memcpy(Extend(layer), query, width_ * sizeof(float)); }
  // One more token, in the place of the oldest: [width], to be filled.
  float* Extend(int layer) { return Slot(layer, count_[layer]++ % window_); }
  // i = 0 is the oldest remembered.
  const float* Token(int layer, int i) const {
    TIDEPOOL_CHECK(i >= 0 && i < tokens(layer));
    return const_cast<QueryRing*>(this)->Slot(layer, (count_[layer] - tokens(layer) + i) % window_);
  }
  void Save(ByteWriter& out) const {
    out.PutVector(count_);
    out.PutVector(data_);
  }
  // False when the bytes are not those of a ring of this shape.
  bool Load(ByteReader& in) {
    std::vector<int64_t> count = in.GetVector<int64_t>();
    std::vector<float> data = in.GetVector<float>();
    if (!in.ok() || count.size() != count_.size() || data.size() != data_.size()) return false;
    for (int64_t c : count) {
      if (c < 0) return false;
    }
    count_ = std::move(count);
    data_ = std::move(data);
    return true;
  }

 private:
  float* Slot(int layer, int64_t slot) { return data_.data() + (int64_t{layer} * window_ + slot) * width_; }

  const int window_, width_;
  std::vector<int64_t> count_;  // by layer: pushed so far
  std::vector<float> data_;     // [layer][window][width]
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_QUERY_RING_H_
