#include "policies/retain/aha_scores.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {
namespace {

// Pooled in double precision: PoolScores rounds to float, and norms are not bounded like probabilities.
std::vector<double> PooledByAverage(absl::Span<const double> norms, int kernel) {
  const int size = static_cast<int>(norms.size()), half = kernel / 2;
  std::vector<double> pooled(norms.size());
  for (int i = 0; i < size; ++i) {
    double sum = 0;
    for (int j = std::max(0, i - half); j <= std::min(size - 1, i + half); ++j) sum += norms[j];
    pooled[i] = sum / kernel;
  }
  return pooled;
}

// Values that are all zero say nothing: the attention alone decides.
double Prior(double norm, double largest) { return largest > 0 ? norm / largest : 1.0; }

template <typename T>
std::vector<T> Gather(const std::vector<T>& from, absl::Span<const int32_t> rows) {
  std::vector<T> out;
  out.reserve(rows.size());
  for (int32_t i : rows) out.push_back(from[i]);
  return out;
}

}  // namespace

double AhaQueryScale(int64_t tokens, int64_t budget) {
  TIDEPOOL_CHECK(tokens >= 1 && budget >= 1);
  if (tokens <= budget) return 0;
  return std::sqrt(2 * std::log(static_cast<double>(tokens) / static_cast<double>(budget)));
}

double AhaLambda(int64_t tokens, int64_t budget, int head_dim) {
  TIDEPOOL_CHECK(head_dim >= 1);
  return AhaQueryScale(tokens, budget) / std::sqrt(static_cast<double>(head_dim));
}

std::vector<double> SquaredNorms(absl::Span<const float> values, int head_dim) {
  TIDEPOOL_CHECK(head_dim >= 1 && values.size() % head_dim == 0);
  std::vector<double> norms;
  norms.reserve(values.size() / head_dim);
  for (size_t row = 0; row < values.size(); row += head_dim) {
    double sum = 0;
    for (int c = 0; c < head_dim; ++c) sum += double{values[row + c]} * values[row + c];
    norms.push_back(sum);
  }
  return norms;
}

AhaScores::AhaScores(int recent, int value_kernel) : recent_(recent), value_kernel_(value_kernel) {
  TIDEPOOL_CHECK(recent >= 1 && value_kernel >= 1 && value_kernel % 2 == 1);
}

void AhaScores::SetPrompt(absl::Span<const float> attention, absl::Span<const double> value_norms) {
  const size_t tokens = value_norms.size();
  TIDEPOOL_CHECK(tokens >= 1 && attention.size() % tokens == 0 && attention.size() <= recent_ * tokens);
  prior_ = PooledByAverage(value_norms, value_kernel_);
  largest_norm_ = *std::max_element(prior_.begin(), prior_.end());
  for (double& prior : prior_) prior = Prior(prior, largest_norm_);
  attention_.clear();
  for (size_t row = 0; row < attention.size(); row += tokens) {
    attention_.emplace_back(attention.begin() + static_cast<int64_t>(row),
                            attention.begin() + static_cast<int64_t>(row + tokens));
  }
}

void AhaScores::Append(double value_norm, absl::Span<const float> attention) {
  TIDEPOOL_CHECK(attention.size() == prior_.size() + 1);
  largest_norm_ = std::max(largest_norm_, value_norm);
  prior_.push_back(Prior(value_norm, largest_norm_));
  if (attention_.size() == recent_) attention_.pop_front();
  for (std::vector<float>& row : attention_) row.push_back(0.0f);
  attention_.emplace_back(attention.begin(), attention.end());
}

void AhaScores::Keep(absl::Span<const int32_t> kept) {
  prior_ = Gather(prior_, kept);
  for (std::vector<float>& row : attention_) row = Gather(row, kept);
}

std::vector<float> AhaScores::Scores() const {
  std::vector<double> sum(prior_.size(), 0.0);
  for (const std::vector<float>& row : attention_) {
    for (size_t i = 0; i < row.size(); ++i) sum[i] += row[i];
  }
  std::vector<float> scores(prior_.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = static_cast<float>(sum[i] * prior_[i]);
  return scores;
}

}  // namespace tidepool
