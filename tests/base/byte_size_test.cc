#include "base/byte_size.h"

#include <gtest/gtest.h>

namespace tidepool {
namespace {

TEST(ParseByteSizeTest, ReadsNumbersWithAndWithoutSuffix) {
  EXPECT_EQ(ParseByteSize("0"), 0u);
  EXPECT_EQ(ParseByteSize("512"), 512u);
  EXPECT_EQ(ParseByteSize("7B"), 7u);
  EXPECT_EQ(ParseByteSize("64KiB"), 65'536u);
  EXPECT_EQ(ParseByteSize("64 MiB"), uint64_t{64} << 20);
  EXPECT_EQ(ParseByteSize("1.5GiB"), uint64_t{3} << 29);
  EXPECT_EQ(ParseByteSize("2TiB"), uint64_t{2} << 40);
  EXPECT_EQ(ParseByteSize("3KB"), 3'000u);
  EXPECT_EQ(ParseByteSize("0.5TB"), 500'000'000'000u);
}

TEST(ParseByteSizeTest, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "GiB", "-1", "+1", "1 2", "1.2.3", ".", "1e3", "64kib", "64Mi", "1GiBs", "0x10", "nan"}) {
    EXPECT_EQ(ParseByteSize(text), std::nullopt) << "'" << text << "'";
  }
}

TEST(ParseByteSizeTest, RefusesWhatDoesNotFit) {
  EXPECT_EQ(ParseByteSize("8000000TiB"), uint64_t{8'000'000} << 40);
  EXPECT_EQ(ParseByteSize("9000000TiB"), std::nullopt);
  EXPECT_EQ(ParseByteSize("99999999999999999999"), std::nullopt);
}

TEST(FormatByteSizeTest, GivesOneDecimalFromKibibytesOn) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(1023), "1023 B");
  EXPECT_EQ(FormatByteSize(1024), "1.0 KiB");
  EXPECT_EQ(FormatByteSize(uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(FormatByteSize(uint64_t{1} << 63), "8192.0 PiB");
}

TEST(FormatByteSizeTest, WhatItGivesCanBeReadAgain) {
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1000}, uint64_t{1} << 20, uint64_t{5} << 29, uint64_t{7} << 40}) {
    EXPECT_EQ(ParseByteSize(FormatByteSize(bytes)), bytes);
  }
}

}  // namespace
}  // namespace tidepool
