#include "base/sha256.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace tidepool {
namespace {

std::string Hex(const Sha256::Digest& digest) {
  std::string text;
  for (uint8_t byte : digest) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", byte);
    text += digits;
  }
  return text;
}

// FIPS 180-2, examples of appendix B.
TEST(Sha256Test, GivesTheValuesOfTheStandard) {
  EXPECT_EQ(Hex(Sha256().Finish()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Hex(Sha256().Add("abc", 3).Finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256Test, DoesNotDependOnHowTheInputIsCut) {
  EXPECT_EQ(Sha256().Add("a", 1).Add("", 0).Add("bc", 2).Finish(), Sha256().Add("abc", 3).Finish());
}

// SHA-256 over 03 00 00 00 00 00 00 00 'a' 'b' 'c' 00 00 00 00 00 00 00 00, computed with Python's hashlib.
TEST(Sha256Test, AddFieldPutsALittleEndianLengthBeforeTheBytes) {
  EXPECT_EQ(Hex(Sha256().AddField("abc").AddField("").Finish()),
            "3e2f8940c3a0e0fd6f6e07bbf07f015dd7c147431e5fa14bf3f225d782641540");
}

TEST(Sha256Test, NeighbouringFieldsCannotRunIntoOneAnother) {
  EXPECT_NE(Sha256().AddField("ab").AddField("c").Finish(), Sha256().AddField("a").AddField("bc").Finish());
}

}  // namespace
}  // namespace tidepool
