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

QueryMoments::QueryMoments(int head_dim) : sum_(head_dim, 0.0), products_(size_t{1} * head_dim * head_dim, 0.0) {
  TIDEPOOL_CHECK(head_dim >= 1);
}

void QueryMoments::Add(absl::Span<const float> query) {
  TIDEPOOL_CHECK(query.size() == sum_.size());
  ++count_;
  for (size_t i = 0; i < query.size(); ++i) {
    sum_[i] += query[i];
    double* row = products_.data() + i * query.size();
    for (size_t j = 0; j <= i; ++j) row[j] += double{query[i]} * query[j];
  }
}

QueryDistribution QueryMoments::Distribution() const {
  const size_t d = sum_.size();
  const double count = std::max<double>(static_cast<double>(count_), 1);
  QueryDistribution out;
  out.mean.reserve(d);
  for (double sum : sum_) out.mean.push_back(sum / count);
  out.covariance.resize(d * d);
  for (size_t i = 0; i < d; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      out.covariance[i * d + j] = out.covariance[j * d + i] = products_[i * d + j] / count - out.mean[i] * out.mean[j];
    }
  }
  return out;
}

void Unrotate(const Rope& rope, int32_t position, absl::Span<float> query) {
  const size_t pairs = rope.frequencies.size();
  TIDEPOOL_CHECK(2 * pairs <= query.size());
  for (size_t i = 0; i < pairs; ++i) {
    const double angle = double{rope.frequencies[i]} * position;
    const double cosine = std::cos(angle) / rope.magnitude, sine = std::sin(angle) / rope.magnitude;
    float& a = query[rope.neox ? i : 2 * i];
    float& b = query[rope.neox ? pairs + i : 2 * i + 1];
    const double turned = cosine * a + sine * b;
    b = static_cast<float>(cosine * b - sine * a);
    a = static_cast<float>(turned);
  }
}

QueryDistribution DistributionOfQueries(absl::Span<const float> queries, int head_dim) {
  TIDEPOOL_CHECK(head_dim >= 1 && !queries.empty() && queries.size() % head_dim == 0);
  QueryMoments moments(head_dim);
  for (size_t at = 0; at < queries.size(); at += head_dim) moments.Add(queries.subspan(at, head_dim));
  return moments.Distribution();
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
