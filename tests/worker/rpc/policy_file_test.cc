#include "worker/rpc/policy_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"
#include "worker/rpc/convert_compression.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

constexpr char kTwo[] = R"({"policies": [
  {"name": "light-ada", "summary": "lazy layers, Ada-KV in the others",
   "compression": {"preset": "lighttransfer", "head_budget": "HEAD_BUDGET_ADA", "budget_fraction": 0.3,
                   "window_tokens": 16}},
  {"name": "d2o-drop", "compression": {"preset": "d2o", "fate": "FATE_DROP", "dense_layers_override": true}}
]})";

TEST(PolicyFileTest, ANamedPolicyIsWhatItSaysAndTheRequestChangesIt) {
  const NamedPolicies named = *NamedPolicies::Parse(kTwo);
  ASSERT_EQ(named.policies().size(), 2u);
  EXPECT_EQ(named.policies().at("light-ada").summary(), "lazy layers, Ada-KV in the others");
  v1::CompressionParams params;
  params.set_preset("light-ada");
  params.set_budget_fraction(0.1);
  EXPECT_TRUE(named.Knows(params));
  named.Apply(params);
  const CompressionSpec spec = *CompressionFrom(params, false);
  CompressionSpec expected = *PresetSpec("lighttransfer");
  expected.head_budget = HeadBudgetRule::kAda;
  expected.budget_fraction = 0.1;
  expected.window_tokens = 16;
  EXPECT_EQ(spec, expected);
}

TEST(PolicyFileTest, OtherNamesStayAsTheyAre) {
  const NamedPolicies named = *NamedPolicies::Parse(kTwo);
  v1::CompressionParams params;
  params.set_preset("snapkv");
  EXPECT_FALSE(named.Knows(params));
  named.Apply(params);
  EXPECT_EQ(params.preset(), "snapkv");
  EXPECT_FALSE(NamedPolicies().Knows(params));
}

TEST(PolicyFileTest, MistakesAreRefusedByPolicyAndField) {
  const struct {
    const char* json;
    std::vector<const char*> parts;
  } cases[] = {
      {"{", {"PolicyFile"}},
      {"[]", {"PolicyFile"}},
      {R"({"polices": []})", {"polices"}},
      {R"({"policies": [{"name": "a", "compression": {"preset": "snapkv", "fate": "FATE_BURN"}}]})", {"fate"}},
      {R"({"policies": [{"name": "A", "compression": {"preset": "snapkv"}}]})", {"policies[0] 'A'", "name"}},
      {R"({"policies": [{"name": "", "compression": {"preset": "snapkv"}}]})", {"policies[0]", "name"}},
      {R"({"policies": [{"name": "snapkv", "compression": {"preset": "h2o"}}]})", {"snapkv", "name: is a preset's"}},
      {R"({"policies": [{"name": "a"}]})", {"'a'", "compression.preset"}},
      {R"({"policies": [{"name": "a", "compression": {"preset": "b"}}]})", {"'a'", "compression.preset", "'b'"}},
      {R"({"policies": [{"name": "a", "compression": {"preset": "h2o"}}, {"name": "a", "compression": {"preset": "h2o"}}]})",
       {"policies[1] 'a'", "twice"}},
      {R"({"policies": [{"name": "a", "compression": {"preset": "d2o", "head_budget": "HEAD_BUDGET_ADA"}}]})",
       {"'a'", "head_budget", "merge"}},
      {R"({"policies": [{"name": "a", "compression": {"preset": "h2o", "budget_fraction": 2}}]})",
       {"'a'", "budget_fraction", "2"}},
  };
  for (const auto& c : cases) {
    const absl::Status status = NamedPolicies::Parse(c.json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.json;
    for (const char* part : c.parts) EXPECT_THAT(std::string(status.message()), HasSubstr(part)) << c.json;
  }
}

TEST(PolicyFileTest, AFileIsReadAndNamedInItsErrors) {
  const test::TempDir dir;
  std::ofstream(dir.File("good.json")) << kTwo;
  std::ofstream(dir.File("bad.json")) << "{";
  EXPECT_EQ(NamedPolicies::Read(dir.File("good.json"))->policies().size(), 2u);
  EXPECT_THAT(std::string(NamedPolicies::Read(dir.File("bad.json")).status().message()), HasSubstr("bad.json"));
  EXPECT_THAT(std::string(NamedPolicies::Read(dir.File("none.json")).status().message()), HasSubstr("cannot read"));
}

}  // namespace
}  // namespace tidepool
