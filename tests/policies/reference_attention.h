// Attention in double precision over explicit lists of keys: slow, obvious, and independent of the kernels. It makes
// the probability rows that the policies under test are given.
#ifndef TIDEPOOL_TESTS_POLICIES_REFERENCE_ATTENTION_H_
#define TIDEPOOL_TESTS_POLICIES_REFERENCE_ATTENTION_H_

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/policies/golden.h"

namespace tidepool::test {

// softmax over `keys` of query.key / sqrt(head_dim).
inline std::vector<double> AttentionRow(const float* query, const std::vector<const float*>& keys, int head_dim) {
  std::vector<double> row;
  for (const float* key : keys) {
    double dot = 0;
    for (int c = 0; c < head_dim; ++c) dot += double{query[c]} * key[c];
    row.push_back(dot / std::sqrt(double(head_dim)));
  }
  const double largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (double& x : row) sum += x = std::exp(x - largest);
  for (double& x : row) x /= sum;
  return row;
}

// One layer of a golden case. A storage head owns one kept set: a kv head, or (heads = "query") a query head, which
// then has a copy of its kv head's keys and values.
struct GoldenLayer {
  Tensor q, k, v;  // [heads][tokens][head_dim]; v may be empty
  int query_heads, storage_heads, group, head_dim, tokens;

  GoldenLayer(const nlohmann::json& json, const std::string& heads)
      : q(ToTensor(json.at("q"))), k(ToTensor(json.at("k"))) {
    if (json.contains("v")) v = ToTensor(json.at("v"));
    query_heads = q.shape.at(0);
    storage_heads = heads == "kv" ? k.shape.at(0) : query_heads;
    group = query_heads / storage_heads;
    tokens = k.shape.at(1);
    head_dim = k.shape.at(2);
  }
  int kv_head(int storage_head) const { return storage_head * k.shape[0] / storage_heads; }
  const float* query(int storage_head, int member, int position) const {
    return q.row(storage_head * group + member, position);
  }
  const float* key(int storage_head, int position) const { return k.row(kv_head(storage_head), position); }
  const float* value(int storage_head, int position) const { return v.row(kv_head(storage_head), position); }

  std::vector<const float*> keys(int storage_head, int count) const {
    std::vector<const float*> out;
    for (int i = 0; i < count; ++i) out.push_back(key(storage_head, i));
    return out;
  }

  // Causal probabilities [group][last - first][columns] of the queries at positions first .. last - 1.
  std::vector<float> Probabilities(int storage_head, int first, int last, int columns) const {
    std::vector<float> out;
    for (int member = 0; member < group; ++member) {
      for (int position = first; position < last; ++position) {
        std::vector<double> row =
            AttentionRow(query(storage_head, member, position), keys(storage_head, position + 1), head_dim);
        row.resize(columns, 0.0);
        out.insert(out.end(), row.begin(), row.end());
      }
    }
    return out;
  }

  // Column sums [group][prompt] over all rows of the prompt, gathered in chunks as prefill does.
  std::vector<float> ColumnSums(int storage_head, int prompt, int chunk) const {
    std::vector<float> sums(static_cast<size_t>(group) * prompt, 0.0f);
    for (int first = 0; first < prompt; first += chunk) {
      const int last = std::min(prompt, first + chunk);
      const std::vector<float> rows = Probabilities(storage_head, first, last, last);
      for (int member = 0; member < group; ++member) {
        for (int i = 0; i < last - first; ++i) {
          const float* row = rows.data() + (static_cast<size_t>(member) * (last - first) + i) * last;
          for (int j = 0; j < last; ++j) sums[static_cast<size_t>(member) * prompt + j] += row[j];
        }
      }
    }
    return sums;
  }
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_POLICIES_REFERENCE_ATTENTION_H_
