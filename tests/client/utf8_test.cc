#include "client/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace tidepool::client {
namespace {

TEST(Utf8Test, TextIsValidToItsEnd) {
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("a\0b", 3), std::string("ä€𝄞"),
        std::string("\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF")}) {
    EXPECT_EQ(ValidUtf8Prefix(text), text.size()) << text;
  }
}

TEST(Utf8Test, ThePrefixEndsAtTheFirstWrongCharacter) {
  for (const char* wrong :
       {"\x80", "\xBF", "\xC0\xAF", "\xC1\xBF", "\xC2", "\xC2z", "\xE0\x9F\xBF", "\xE2\x82", "\xED\xA0\x80",
        "\xF0\x8F\xBF\xBF", "\xF0\x90\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_EQ(ValidUtf8Prefix(std::string("ab") + wrong + "cd"), 2u) << testing::PrintToString(std::string(wrong));
  }
}

}  // namespace
}  // namespace tidepool::client
