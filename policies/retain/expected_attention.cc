#include "policies/retain/expected_attention.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool {
namespace {

// Turns a vector whose elements are `stride` apart.
void Turn(const AverageRotation& rotation, double* x, size_t stride) {
  const size_t pairs = rotation.cosine.size();
  for (size_t i = 0; i < pairs; ++i) {
    double& a = x[(rotation.neox ? i : 2 * i) * stride];
    double& b = x[(rotation.neox ? pairs + i : 2 * i + 1) * stride];
    const double turned = rotation.cosine[i] * a - rotation.sine[i] * b;
    b = rotation.sine[i] * a + rotation.cosine[i] * b;
    a = turned;
  }
}

// ln of the attention that a key can expect.
double ExpectedLogit(const QueryDistribution& queries, const float* key) {
  const size_t head_dim = queries.mean.size();
  double linear = 0, quadratic = 0;
  for (size_t i = 0; i < head_dim; ++i) {
    const double* row = queries.covariance.data() + i * head_dim;
    double dot = 0;
    for (size_t j = 0; j < head_dim; ++j) dot += row[j] * key[j];
    quadratic += key[i] * dot;
    linear += queries.mean[i] * key[i];
  }
  const auto d = static_cast<double>(head_dim);
  return linear / std::sqrt(d) + quadratic / (2 * d);
}

}  // namespace

QueryDistribution DistributionOfQueries(absl::Span<const float> queries, int head_dim) {
  TIDEPOOL_CHECK(head_dim >= 1 && !queries.empty() && queries.size() % head_dim == 0);
  const auto d = static_cast<size_t>(head_dim);
  const size_t rows = queries.size() / d;
  const auto count = static_cast<double>(rows);
  QueryDistribution out;
  out.mean.assign(d, 0.0);
  out.covariance.assign(d * d, 0.0);
  for (size_t at = 0; at < queries.size(); at += d) {
    for (size_t i = 0; i < d; ++i) out.mean[i] += queries[at + i];
  }
  for (double& mean : out.mean) mean /= count;
  std::vector<double> centered(d);
  for (size_t at = 0; at < queries.size(); at += d) {
    for (size_t i = 0; i < d; ++i) centered[i] = queries[at + i] - out.mean[i];
    for (size_t i = 0; i < d; ++i) {
      for (size_t j = 0; j < d; ++j) out.covariance[i * d + j] += centered[i] * centered[j];
    }
  }
  for (double& covariance : out.covariance) covariance /= count;
  return out;
}

AverageRotation RotationAhead(absl::Span<const float> frequencies, int64_t first, int positions, bool neox) {
  TIDEPOOL_CHECK(positions >= 1);
  AverageRotation rotation;
  rotation.neox = neox;
  for (const float frequency : frequencies) {
    double cosine = 0, sine = 0;
    for (int64_t position = first; position < first + positions; ++position) {
      cosine += std::cos(double{frequency} * static_cast<double>(position));
      sine += std::sin(double{frequency} * static_cast<double>(position));
    }
    rotation.cosine.push_back(cosine / positions);
    rotation.sine.push_back(sine / positions);
  }
  return rotation;
}

void Rotate(const AverageRotation& rotation, QueryDistribution& queries) {
  const size_t head_dim = queries.mean.size();
  TIDEPOOL_CHECK(2 * rotation.cosine.size() <= head_dim && queries.covariance.size() == head_dim * head_dim);
  Turn(rotation, queries.mean.data(), 1);
  for (size_t i = 0; i < head_dim; ++i) Turn(rotation, queries.covariance.data() + i, head_dim);      // R C
  for (size_t i = 0; i < head_dim; ++i) Turn(rotation, queries.covariance.data() + i * head_dim, 1);  // (R C) R^T
}

std::vector<float> ExpectedAttention(absl::Span<const QueryDistribution> group, absl::Span<const float> keys,
                                     absl::Span<const float> value_norms) {
  TIDEPOOL_CHECK(!group.empty());
  const size_t rows = value_norms.size(), head_dim = group[0].mean.size();
  TIDEPOOL_CHECK(keys.size() == rows * head_dim);
  std::vector<double> scores(rows, 0.0), logits(rows);
  for (const QueryDistribution& queries : group) {
    TIDEPOOL_CHECK(queries.mean.size() == head_dim && queries.covariance.size() == head_dim * head_dim);
    for (size_t i = 0; i < rows; ++i) logits[i] = ExpectedLogit(queries, keys.data() + i * head_dim);
    const double largest = rows > 0 ? *std::max_element(logits.begin(), logits.end()) : 0.0;
    double sum = 0;
    for (double& x : logits) sum += x = std::exp(x - largest);
    for (size_t i = 0; i < rows; ++i) scores[i] += logits[i] / sum;
  }
  std::vector<float> out(rows);
  for (size_t i = 0; i < rows; ++i) {
    out[i] = static_cast<float>(scores[i] / static_cast<double>(group.size()) * value_norms[i]);
  }
  return out;
}

}  // namespace tidepool
