#include "policies/retain/token_scores.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace tidepool {

std::vector<float> PoolScores(absl::Span<const float> scores, int kernel, Pooling pooling) {
  TIDEPOOL_CHECK(kernel >= 1 && kernel % 2 == 1);
  std::vector<float> out(scores.begin(), scores.end());
  if (pooling == Pooling::kNone || kernel == 1) return out;
  const int size = static_cast<int>(scores.size()), half = kernel / 2;
  if (pooling == Pooling::kMax) {
    // One neighbour of all scores after the other, from the first on.
    for (int i = 0; i < size; ++i) out[i] = scores[std::max(0, i - half)];
    for (int shift = 1 - half; shift <= half; ++shift) {
      for (int i = std::max(0, -shift); i < std::min(size, size - shift); ++i) {
        out[i] = out[i] < scores[i + shift] ? scores[i + shift] : out[i];
      }
    }
    return out;
  }
  for (int i = 0; i < size; ++i) {
    const int first = std::max(0, i - half), last = std::min(size - 1, i + half);
    double sum = 0;
    for (int j = first; j <= last; ++j) sum += scores[j];
    out[i] = static_cast<float>(sum / kernel);
  }
  return out;
}

std::vector<float> ReduceGroup(absl::Span<const float> scores, int group, GroupReduce reduce) {
  TIDEPOOL_CHECK(group >= 1 && scores.size() % group == 0);
  const size_t size = scores.size() / group;
  std::vector<float> out(scores.begin(), scores.begin() + static_cast<int64_t>(size));
  for (int g = 1; g < group; ++g) {
    for (size_t i = 0; i < size; ++i) {
      const float score = scores[g * size + i];
      out[i] = reduce == GroupReduce::kMax ? std::max(out[i], score) : out[i] + score;
    }
  }
  if (reduce == GroupReduce::kMean) {
    for (float& score : out) score /= static_cast<float>(group);
  }
  return out;
}

std::vector<float> WindowScores(absl::Span<const float> probabilities, int group, int window_rows, int keys, int past,
                                GroupReduce reduce, int kernel, Pooling pooling) {
  TIDEPOOL_CHECK(past <= keys && probabilities.size() == static_cast<size_t>(group) * window_rows * keys);
  std::vector<float> scores(static_cast<size_t>(group) * past);
  for (int g = 0; g < group; ++g) {
    std::vector<double> sum(past, 0.0);
    for (int row = 0; row < window_rows; ++row) {
      const float* from = probabilities.data() + (static_cast<size_t>(g) * window_rows + row) * keys;
      for (int i = 0; i < past; ++i) sum[i] += from[i];
    }
    for (int i = 0; i < past; ++i) scores[static_cast<size_t>(g) * past + i] = static_cast<float>(sum[i] / window_rows);
  }
  return PoolScores(ReduceGroup(scores, group, reduce), kernel, pooling);
}

std::vector<float> WindowScoresOfSums(absl::Span<const float> sums, int group, int queries, int past,
                                      GroupReduce reduce, int kernel, Pooling pooling) {
  TIDEPOOL_CHECK(past <= static_cast<int>(sums.size()) && reduce != GroupReduce::kMax);
  std::vector<float> scores(sums.begin(), sums.begin() + past);
  const auto divisor = static_cast<float>(reduce == GroupReduce::kMean ? queries * group : queries);
  for (float& score : scores) score /= divisor;
  return PoolScores(scores, kernel, pooling);
}

std::vector<float> LastRowScores(absl::Span<const float> probabilities, int query_heads) {
  return ReduceGroup(probabilities, query_heads, GroupReduce::kMean);
}

int32_t WorstIndex(absl::Span<const float> scores) {
  int32_t worst = 0;
  float rank = BestFirst::Rank(scores[0]);
  for (size_t i = 1; i < scores.size(); ++i) {
    const float other = BestFirst::Rank(scores[i]);
    if (other > rank) continue;
    rank = other;
    worst = static_cast<int32_t>(i);
  }
  return worst;
}

std::vector<int32_t> TopIndices(absl::Span<const float> scores, int count) {
  const auto size = static_cast<int32_t>(scores.size());
  std::vector<int32_t> index(size);
  std::iota(index.begin(), index.end(), 0);
  if (count >= size) return index;
  if (count <= 0) return {};
  if (count == size - 1) {  // what policies that act at every step ask for
    index.erase(index.begin() + WorstIndex(scores));
    return index;
  }
  std::nth_element(index.begin(), index.begin() + count, index.end(), BestFirst(scores));
  std::vector<uint8_t> best(size, 0);
  for (int32_t i = 0; i < count; ++i) best[index[i]] = 1;
  index.clear();
  for (int32_t i = 0; i < size; ++i) {
    if (best[i] != 0) index.push_back(i);
  }
  return index;
}

}  // namespace tidepool
