#include "base/bytes.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tidepool {
namespace {

enum class Colour : uint8_t { kRed = 1, kBlue = 2 };

std::string Sample() {
  ByteWriter writer;
  writer.Put<uint16_t>(0x0201);
  writer.Put(Colour::kBlue);
  writer.PutBytes("tide");
  writer.PutVector(std::vector<int32_t>{-1, 5});
  return std::move(writer).Take();
}

TEST(BytesTest, FieldsAreLittleEndianAndSizesComeBeforeBytes) {
  const char expected[] =
      "\x01\x02"
      "\x02"
      "\x04\0\0\0\0\0\0\0tide"
      "\x08\0\0\0\0\0\0\0\xff\xff\xff\xff\x05\0\0\0";
  EXPECT_EQ(Sample(), std::string(expected, sizeof(expected) - 1));
}

TEST(BytesTest, AReaderGivesBackWhatWasWritten) {
  const std::string bytes = Sample();
  ByteReader reader(bytes);
  EXPECT_EQ(reader.Get<uint16_t>(), 0x0201);
  EXPECT_EQ(reader.Get<Colour>(), Colour::kBlue);
  EXPECT_EQ(reader.GetBytes(), "tide");
  EXPECT_FALSE(reader.done());
  EXPECT_EQ(reader.GetVector<int32_t>(), (std::vector<int32_t>{-1, 5}));
  EXPECT_TRUE(reader.done());
}

TEST(BytesTest, EveryTruncationIsSeenAndNothingIsReadPastTheEnd) {
  const std::string whole = Sample();
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::vector<char> exact(whole.begin(),
                                  whole.begin() + static_cast<ptrdiff_t>(size));  // its end is the heap's
    ByteReader reader({exact.data(), exact.size()});
    reader.Get<uint16_t>();
    reader.Get<Colour>();
    reader.GetBytes();
    reader.GetVector<int32_t>();
    EXPECT_FALSE(reader.ok()) << size << " of " << whole.size() << " bytes";
  }
}

TEST(BytesTest, AfterAShortReadAllThatFollowsFails) {
  ByteReader reader("ab");
  EXPECT_EQ(reader.Get<uint32_t>(), 0u);
  EXPECT_EQ(reader.Get<uint8_t>(), 0);
  EXPECT_EQ(reader.left(), 0u);
  EXPECT_FALSE(reader.ok());
}

TEST(BytesTest, ASizeBeyondTheEndAllocatesNothing) {
  ByteWriter writer;
  writer.Put(~uint64_t{0});
  writer.Put<uint32_t>(7);
  const std::string bytes = std::move(writer).Take();
  ByteReader reader(bytes);
  EXPECT_TRUE(reader.GetVector<int32_t>().empty());
  EXPECT_FALSE(reader.ok());
}

TEST(BytesTest, AVectorOfPartialElementsIsRefused) {
  ByteWriter writer;
  writer.PutBytes("abcde");
  const std::string bytes = std::move(writer).Take();
  ByteReader reader(bytes);
  EXPECT_EQ(reader.GetVector<int32_t>().size(), 1u);
  EXPECT_FALSE(reader.done());
}

TEST(BytesTest, BytesLeftOverAreNotDone) {
  ByteReader reader("abc");
  reader.Get<uint16_t>();
  EXPECT_TRUE(reader.ok());
  EXPECT_FALSE(reader.done());
}

}  // namespace
}  // namespace tidepool
