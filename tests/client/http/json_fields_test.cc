#include "client/http/json_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

namespace tidepool::http {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

std::string Error(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ParseJsonObjectTest, WhatIsNoObjectOrNoUtf8IsRefused) {
  EXPECT_TRUE(ParseJsonObject(R"({"a": 1})").ok());
  for (const char* bad : {"", "[]", "1", "{", R"({"a": 1} x)", R"({"a": 01})", R"({"a": "\ud800"})", R"({"a": NaN})"}) {
    EXPECT_THAT(Error(ParseJsonObject(bad).status()), HasSubstr("not a JSON object")) << bad;
  }
  EXPECT_THAT(Error(ParseJsonObject("{\"a\": \"\xff\"}").status()), HasSubstr("not UTF-8 at byte 7"));
}

TEST(ParseJsonObjectTest, DepthHasALimitThatBracketsInStringsDoNotCountFor) {
  const auto nested = [](int levels) {
    return R"({"a":)" + std::string(static_cast<size_t>(levels - 1), '[') +
           std::string(static_cast<size_t>(levels - 1), ']') + "}";
  };
  EXPECT_TRUE(ParseJsonObject(nested(kMaxJsonDepth)).ok());
  EXPECT_THAT(Error(ParseJsonObject(nested(kMaxJsonDepth + 1)).status()), HasSubstr("33 levels"));
  EXPECT_THAT(Error(ParseJsonObject(std::string(1'000'000, '[')).status()), HasSubstr("1000000 levels"));
  EXPECT_TRUE(ParseJsonObject(R"({"a": ")" + std::string(1000, '[') + R"(\"[[["})").ok());
}

TEST(JsonFieldsTest, NullIsAsGoodAsAbsent) {
  const json object = {{"a", nullptr}};
  JsonFields fields(object, "");
  EXPECT_EQ(fields.Take("a"), nullptr);
  EXPECT_EQ(*fields.Bool("a"), std::nullopt);
  EXPECT_EQ(*fields.Integer("b", 0, 1), std::nullopt);
  EXPECT_TRUE(fields.CheckAllTaken().ok());
}

TEST(JsonFieldsTest, ValuesOfAnotherTypeAreNamedWithWhatIsWanted) {
  const json object = {{"a", "x"}, {"b", 1.5}, {"c", 7}, {"d", 18446744073709551615u}, {"long", std::string(200, 'y')}};
  JsonFields fields(object, "outer.");
  EXPECT_EQ(Error(fields.Bool("a").status()), R"(outer.a: "x" is not true or false)");
  EXPECT_EQ(Error(fields.Integer("b", 0, 5).status()), "outer.b: 1.5 is not an integer of 0 to 5");
  EXPECT_EQ(Error(fields.Integer("c", 0, 5).status()), "outer.c: 7 is not an integer of 0 to 5");
  EXPECT_THAT(Error(fields.Integer("d", INT64_MIN, INT64_MAX).status()), StartsWith("outer.d: 18446744073709551615"));
  EXPECT_EQ(Error(fields.Number("a").status()), R"(outer.a: "x" is not a number)");
  EXPECT_EQ(Error(fields.String("c").status()), "outer.c: 7 is not a string");
  EXPECT_LT(Error(fields.Number("long").status()).size(), 120u);
  EXPECT_EQ(*fields.Number("c"), 7.0);
  EXPECT_EQ(*fields.Integer("c", 7, 7), 7);
}

TEST(JsonFieldsTest, AFieldThatNobodyTookIsNamed) {
  const json object = {{"a", 1}, {"tempreature", 2}};
  JsonFields fields(object, "");
  EXPECT_NE(fields.Take("a"), nullptr);
  EXPECT_EQ(Error(fields.CheckAllTaken()), "tempreature: is not supported");
}

}  // namespace
}  // namespace tidepool::http
