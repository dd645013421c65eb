#include "base/checksum.h"

#include <gtest/gtest.h>

#include <string>

namespace tidepool {
namespace {

// Low 32 bits of XXH3-64. The first is the test vector of the specification; all of them were taken from libxxhash
// 0.8.1 and are part of the stored and transferred formats: a change here makes old blocks unreadable.
TEST(Checksum32Test, GivesTheGoldenValues) {
  std::string ramp, strided;
  for (int i = 0; i < 256; ++i) ramp.push_back(static_cast<char>(i));
  for (int i = 0; i < 4096; ++i) strided.push_back(static_cast<char>(i * 7));
  EXPECT_EQ(Checksum32(""), 0x38d394c2u);
  EXPECT_EQ(Checksum32("a"), 0x1e964e1fu);
  EXPECT_EQ(Checksum32("tidepool"), 0xe94c5759u);
  EXPECT_EQ(Checksum32(ramp), 0x3b952d71u);
  EXPECT_EQ(Checksum32(strided), 0x9e810965u);
}

TEST(Checksum32Test, ChangesWithEverySingleBit) {
  std::string bytes(257, '\x5a');
  const uint32_t original = Checksum32(bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      EXPECT_NE(Checksum32(bytes), original) << "byte " << i << ", bit " << bit;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
    }
  }
}

TEST(Checksum32Test, DependsOnTheLengthOfAllZeroBytes) {
  EXPECT_NE(Checksum32(std::string(64, '\0')), Checksum32(std::string(65, '\0')));
}

}  // namespace
}  // namespace tidepool
