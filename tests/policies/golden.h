// Reads the golden cases of tests/data/policies: {policy, cases: [{name, params, <tensors>, expect}]}. A tensor is
// {"shape": [...], "f32": base64 of little-endian float32}.
#ifndef TIDEPOOL_TESTS_POLICIES_GOLDEN_H_
#define TIDEPOOL_TESTS_POLICIES_GOLDEN_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "tests/support/paths.h"

namespace tidepool::test {

struct Tensor {
  std::vector<int> shape;
  std::vector<float> data;

  const float* row(int i, int j) const {
    return data.data() + (static_cast<size_t>(i) * shape.at(1) + j) * shape.at(2);
  }
  absl::Span<const float> row(int i) const {
    return absl::MakeConstSpan(data).subspan(static_cast<size_t>(i) * shape.at(1), shape.at(1));
  }
};

inline Tensor ToTensor(const nlohmann::json& json) {
  Tensor tensor;
  std::string bytes;
  if (!absl::Base64Unescape(json.at("f32").get<std::string>(), &bytes)) throw std::runtime_error("not base64");
  size_t size = 1;
  for (int extent : json.at("shape").get<std::vector<int>>()) {
    tensor.shape.push_back(extent);
    size *= extent;
  }
  if (bytes.size() != size * sizeof(float)) throw std::runtime_error("a tensor's bytes do not fit its shape");
  tensor.data.resize(size);
  std::memcpy(tensor.data.data(), bytes.data(), bytes.size());
  return tensor;
}

// All cases of a policy; throws when the file is missing or holds none.
inline std::vector<nlohmann::json> GoldenCases(const std::string& policy) {
  const auto cases = nlohmann::json::parse(ReadFile(ReferencePath("policies/" + policy + ".json"))).at("cases");
  if (cases.empty()) throw std::runtime_error(policy + ".json holds no cases");
  return cases;
}

inline void ExpectClose(absl::Span<const float> actual, absl::Span<const float> expected, double relative = 1e-4,
                        double absolute = 1e-6) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], absolute + relative * std::abs(expected[i])) << "at " << i;
  }
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_POLICIES_GOLDEN_H_
