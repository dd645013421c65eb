#include "cacheservice/tiers/disk_records.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"
#include "base/limits.h"
#include "tests/support/blocks.h"

namespace tidepool {
namespace {

constexpr char kKeyHex[] = "000102030405060708090a0b0c0d0e0f";

BlockId Id() {
  BlockId id;
  for (size_t i = 0; i < id.key.bytes.size(); ++i) id.key.bytes[i] = static_cast<uint8_t>(i);
  id.layer = 7;
  return id;
}

TEST(DiskRecordsTest, BytesAreThoseOfTheStoredFormat) {
  EXPECT_EQ(absl::BytesToHexString(SequenceKey(0x1122334455667788)), "1122334455667788");
  EXPECT_EQ(absl::BytesToHexString(ValueKey(1, Id())), std::string("0000000000000001") + kKeyHex + "00000007");
  const DiskEntry entry = {.id = Id(), .value_bytes = 0x00020100, .written = 0x65666768, .tenant = "ab"};
  EXPECT_EQ(absl::BytesToHexString(IndexEntry(entry)),
            std::string(kKeyHex) + "00000007" + "00010280" + "68676665" + "6162");
}

TEST(DiskRecordsTest, WhatWasWrittenIsRead) {
  const std::string bytes = IndexEntry({.id = Id(), .value_bytes = 8792, .written = 1'800'000'000, .tenant = "acme"});
  const std::optional<DiskEntry> entry = ParseIndexEntry(bytes);
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->id, Id());
  EXPECT_EQ(entry->value_bytes, 8792u);
  EXPECT_EQ(entry->written, 1'800'000'000u);
  EXPECT_EQ(entry->tenant, "acme");
}

TEST(DiskRecordsTest, AnEntryOfBeforeThereWereTimesIsReadWithoutOne) {
  const std::string bytes = absl::HexStringToBytes(std::string(kKeyHex) + "00000007" + "00010200" + "6162");
  const std::optional<DiskEntry> entry = ParseIndexEntry(bytes);
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->value_bytes, 0x00020100u);
  EXPECT_EQ(entry->written, 0u);
  EXPECT_EQ(entry->tenant, "ab");
}

TEST(DiskRecordsTest, WhatIsCutShortOrHasTooLongATenantIsNoEntry) {
  const std::string whole = IndexEntry({.id = Id(), .value_bytes = 1, .written = 1});
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) EXPECT_FALSE(ParseIndexEntry(whole.substr(0, bytes)));
  EXPECT_TRUE(ParseIndexEntry(whole));
  EXPECT_TRUE(ParseIndexEntry(whole + std::string(kMaxTenantBytes, 'x')));
  EXPECT_FALSE(ParseIndexEntry(whole + std::string(kMaxTenantBytes + 1, 'x')));
}

}  // namespace
}  // namespace tidepool
