#include "policies/recall/cosine_probe.h"

#include "gtest/gtest.h"
#include "tests/policies/golden.h"

namespace tidepool {
namespace {

TEST(CosineProbeTest, DecisionsSimilaritiesAndThresholdEqualTheReference) {
  for (const auto& json : test::GoldenCases("recall")) {
    SCOPED_TRACE(json.at("name").get<std::string>());
    const test::Tensor probes = test::ToTensor(json.at("probe"));
    const test::Tensor retained = test::ToTensor(json.at("retained"));
    const test::Tensor offloaded = test::ToTensor(json.at("offloaded"));
    const auto& params = json.at("params");
    std::optional<double> theta;
    if (!params.at("theta").is_null()) theta = params.at("theta").get<double>();
    const CosineProbeResult result =
        ProbeByCosine(probes.data, retained.data, offloaded.data, probes.shape[1], params.at("beta"), theta);
    const auto& expect = json.at("expect");
    EXPECT_EQ(result.recall, expect.at("recall").get<std::vector<uint8_t>>());
    test::ExpectClose(result.similarity, test::ToTensor(expect.at("similarity")).data);
    EXPECT_NEAR(*theta, expect.at("theta").get<double>(), 1e-6);
  }
}

TEST(CosineProbeTest, LengthsDoNotMatterAndZeroKeysAreLikeNothing) {
  std::optional<double> theta;
  const CosineProbeResult result = ProbeByCosine({2, 0}, {3, 4}, {100, 0, 0, 0, 0.001f, 0.001f}, 2, 0.7, theta);
  EXPECT_NEAR(*theta, 0.6, 1e-6);
  EXPECT_EQ(result.recall, (std::vector<uint8_t>{1, 0, 1}));
}

}  // namespace
}  // namespace tidepool
