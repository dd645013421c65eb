#include "policies/retain/merge.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {

std::vector<float> UnitRowBlocks(const float* rows, int count, int head_dim, int block) {
  const int blocks = (count + block - 1) / block;
  std::vector<float> out(static_cast<size_t>(blocks) * block * head_dim, 0.0f);
  for (int i = 0; i < count; ++i, rows += head_dim) {
    double squares = 0;
    for (int c = 0; c < head_dim; ++c) squares += double{rows[c]} * rows[c];
    const double inverse = 1.0 / std::max(std::sqrt(squares), 1e-12);
    float* to = out.data() + static_cast<size_t>(i / block) * block * head_dim + i % block;
    for (int c = 0; c < head_dim; ++c) to[static_cast<size_t>(c) * block] = static_cast<float>(rows[c] * inverse);
  }
  return out;
}

std::vector<float> UnitRows(const float* rows, int count, int head_dim) {
  return UnitRowBlocks(rows, count, head_dim, 1);
}

namespace {

void FindTargets(const MergeHead& head, int evicted, int head_dim, std::vector<float>& similarity,
                 std::vector<int32_t>& target) {
  // One block of all: products then run over rows without a horizontal sum.
  const std::vector<float> kept = UnitRowBlocks(head.kept_keys, head.kept, head_dim, head.kept);
  const std::vector<float> gone = UnitRows(head.evicted_keys, evicted, head_dim);
  similarity.resize(evicted);
  target.resize(evicted);
  std::vector<float> cosine(head.kept);
  for (int e = 0; e < evicted; ++e) {
    std::fill(cosine.begin(), cosine.end(), 0.0f);
    for (int c = 0; c < head_dim; ++c) {
      const float x = gone[static_cast<size_t>(e) * head_dim + c];
      const float* row = kept.data() + static_cast<size_t>(c) * head.kept;
      for (int i = 0; i < head.kept; ++i) cosine[i] += x * row[i];
    }
    const auto best = std::max_element(cosine.begin(), cosine.end());
    similarity[e] = *best;
    target[e] = static_cast<int32_t>(best - cosine.begin());
  }
}

void MergeHeadRows(const MergeHead& head, int head_dim, absl::Span<const Mixture> mixtures) {
  std::vector<double> key(head_dim), value(head_dim);
  for (const Mixture& mixture : mixtures) {
    float* to_key = head.kept_keys + static_cast<size_t>(mixture.target) * head_dim;
    float* to_value = head.kept_values + static_cast<size_t>(mixture.target) * head_dim;
    for (int c = 0; c < head_dim; ++c) {
      key[c] = mixture.own * to_key[c];
      value[c] = mixture.own * to_value[c];
    }
    for (const Mixture::Source& source : mixture.sources) {
      for (int c = 0; c < head_dim; ++c) {
        key[c] += source.weight * head.evicted_keys[static_cast<size_t>(source.evicted) * head_dim + c];
        value[c] += source.weight * head.evicted_values[static_cast<size_t>(source.evicted) * head_dim + c];
      }
    }
    for (int c = 0; c < head_dim; ++c) {
      to_key[c] = static_cast<float>(key[c] / mixture.divisor);
      to_value[c] = static_cast<float>(value[c] / mixture.divisor);
    }
  }
}

}  // namespace

MergeResult MergeEvicted(absl::Span<const MergeHead> heads, int evicted, int head_dim, const MergeOptions& options,
                         MergeState& state) {
  TIDEPOOL_CHECK(evicted >= 1 && !heads.empty());
  const size_t count = heads.size();
  MergeResult result;
  result.similarity.resize(count);
  result.target.resize(count);
  for (size_t h = 0; h < count; ++h) FindTargets(heads[h], evicted, head_dim, result.similarity[h], result.target[h]);
  MergeFound(heads, evicted, head_dim, options, state, result);
  return result;
}

std::vector<Mixture> MixturesOf(const MergeOptions& options, absl::Span<const float> similarity,
                                absl::Span<const int32_t> target, absl::Span<const uint8_t> merged) {
  std::vector<int32_t> order;
  for (size_t e = 0; e < merged.size(); ++e) {
    if (merged[e] != 0) order.push_back(static_cast<int32_t>(e));
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return target[a] < target[b]; });
  const bool official = options.mode == MergeMode::kOfficial;
  std::vector<Mixture> mixtures;
  for (const int32_t e : order) {
    if (mixtures.empty() || mixtures.back().target != target[e]) {
      const double own = official ? 1.0 : options.merge_e;
      mixtures.push_back({.target = target[e], .own = own, .divisor = own});
    }
    const double weight = official ? similarity[e] : std::exp(double{similarity[e]});
    mixtures.back().divisor += official ? 1.0 : weight;
    mixtures.back().sources.push_back({e, weight});
  }
  return mixtures;
}

void MergeFound(absl::Span<const MergeHead> heads, int evicted, int head_dim, const MergeOptions& options,
                MergeState& state, MergeResult& result) {
  DecideMerges(evicted, options, state, result);
  for (size_t h = 0; h < heads.size(); ++h) {
    MergeHeadRows(heads[h], head_dim, MixturesOf(options, result.similarity[h], result.target[h], result.merged[h]));
  }
}

namespace {

// kOfficial: the threshold of this compression, whose mean similarity is `mean`.
double NextThreshold(double mean, const MergeOptions& options, MergeState& state) {
  const double tau = state.tau.empty() ? mean : options.alpha * state.tau[0] + options.beta * mean;
  state.tau.assign(1, tau);
  return tau;
}

}  // namespace

bool DecideMerge(absl::Span<const float> similarity, const MergeOptions& options, MergeState& state) {
  TIDEPOOL_CHECK(options.mode == MergeMode::kOfficial && !similarity.empty());
  double mean = 0;
  for (const float of_head : similarity) mean += of_head;
  mean /= static_cast<double>(similarity.size());
  return mean >= NextThreshold(mean, options, state);
}

PairMixture MixtureOf(float similarity) { return {.weight = similarity}; }

void DecideMerges(int evicted, const MergeOptions& options, MergeState& state, MergeResult& result) {
  const size_t count = result.similarity.size();
  result.merged.assign(count, std::vector<uint8_t>(evicted, 0));
  if (options.mode == MergeMode::kOfficial) {
    std::vector<double> slot(evicted, 0.0);
    double mean = 0;
    for (const std::vector<float>& similarity : result.similarity) {
      for (int e = 0; e < evicted; ++e) slot[e] += similarity[e];
    }
    for (double& s : slot) mean += s /= static_cast<double>(count);
    mean /= evicted;
    const double tau = NextThreshold(mean, options, state);
    // A single slot at the first compression is its own mean: equal, whatever the rounding.
    for (int e = 0; e < evicted; ++e) {
      for (std::vector<uint8_t>& merged : result.merged) merged[e] = slot[e] >= tau;
    }
  } else {
    const bool first = state.tau.empty();
    state.tau.resize(count);
    for (size_t h = 0; h < count; ++h) {
      const std::vector<float>& similarity = result.similarity[h];
      double mean = 0;
      for (float s : similarity) mean += s;
      mean /= evicted;
      const double most = *std::max_element(similarity.begin(), similarity.end());
      state.tau[h] = first ? mean : options.paper_beta * most + (1 - options.paper_beta) * state.tau[h];
      for (int e = 0; e < evicted; ++e) result.merged[h][e] = similarity[e] >= state.tau[h];
    }
  }
}

}  // namespace tidepool
