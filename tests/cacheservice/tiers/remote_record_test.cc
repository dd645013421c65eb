#include "cacheservice/tiers/remote_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/escaping.h"
#include "cacheservice/resp/hash_slot.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {
namespace {

BlockId Id() {
  BlockId id;
  for (size_t i = 0; i < id.key.bytes.size(); ++i) id.key.bytes[i] = static_cast<uint8_t>(16 * i + 1);
  id.layer = 12;
  return id;
}

constexpr uint32_t kTag = 0x0badcafe;

TEST(RemoteRecordTest, KeysAreThoseOfTheFormatAndAllOfABlockLieInOneSlot) {
  EXPECT_EQ(RemoteHeadKey(Id()), "tidepool:1:{01112131415161718191a1b1c1d1e1f1}:12");
  EXPECT_EQ(RemotePieceKey(Id(), kTag, 3), "tidepool:1:{01112131415161718191a1b1c1d1e1f1}:12:0badcafe:3");
  EXPECT_EQ(HashSlot(RemoteHeadKey(Id())), RemoteSlot(Id().key));
  EXPECT_EQ(HashSlot(RemotePieceKey(Id(), kTag, 3)), RemoteSlot(Id().key));
  EXPECT_EQ(HashSlot(RemoteHeadKey({Id().key, 29})), RemoteSlot(Id().key)) << "other layers, too";
}

TEST(RemoteRecordTest, TheBytesOfAHeadStayAsTheyAre) {
  const std::string record = EncodeRemoteHead(Id(), "value", kMinPieceBytes, kTag);
  EXPECT_EQ(absl::BytesToHexString(record),
            "54505231"                          // magic
            "01112131415161718191a1b1c1d1e1f1"  // block key
            "0c000000"                          // layer
            "05000000"                          // value size
            "00000100"                          // piece size
            "fecaad0b"                          // tag
            "76616c7565");                      // first piece
}

TEST(RemoteRecordTest, AValueIsCutIntoPieces) {
  const std::string value(2 * kMinPieceBytes + 1, 'v');
  const std::string record = EncodeRemoteHead(Id(), value, kMinPieceBytes, kTag);
  const auto head = ParseRemoteHead(Id(), record);
  ASSERT_TRUE(head.ok()) << head.status();
  EXPECT_EQ(head->value_bytes, value.size());
  EXPECT_EQ(head->tag, kTag);
  EXPECT_EQ(head->pieces(), 3u);
  EXPECT_EQ(head->SizeOfPiece(0), kMinPieceBytes);
  EXPECT_EQ(head->SizeOfPiece(1), kMinPieceBytes);
  EXPECT_EQ(head->SizeOfPiece(2), 1u);
  EXPECT_EQ(head->first_piece, value.substr(0, kMinPieceBytes));
}

TEST(RemoteRecordTest, WhatIsNotThisBlocksHeadIsDataLoss) {
  const std::string record = EncodeRemoteHead(Id(), "value", kMinPieceBytes, kTag);
  ASSERT_TRUE(ParseRemoteHead(Id(), record).ok());
  BlockId other_key = Id(), other_layer = Id();
  other_key.key.bytes[15] ^= 1;
  other_layer.layer = 11;
  for (const BlockId& id : {other_key, other_layer}) {
    EXPECT_EQ(ParseRemoteHead(id, record).status().code(), absl::StatusCode::kDataLoss);
  }
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_FALSE(ParseRemoteHead(Id(), record.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(ParseRemoteHead(Id(), record + "x").ok());
  // Any flipped bit of names and sizes; tag and piece are covered by the value's own checksums.
  for (size_t bit = 0; bit < 8 * 28; ++bit) {
    std::string damaged = record;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(ParseRemoteHead(Id(), damaged).ok()) << bit;
  }
  for (const uint32_t bytes : {0u, static_cast<uint32_t>(kMaxBlockValueBytes + 1)}) {
    std::string damaged = record;
    damaged.replace(24, 4, reinterpret_cast<const char*>(&bytes), 4);
    EXPECT_FALSE(ParseRemoteHead(Id(), damaged).ok()) << bytes;
  }
  for (const uint32_t bytes : {0u, kMinPieceBytes - 1, kMaxPieceBytes + 1}) {
    std::string damaged = record;
    damaged.replace(28, 4, reinterpret_cast<const char*>(&bytes), 4);
    EXPECT_FALSE(ParseRemoteHead(Id(), damaged).ok()) << bytes;
  }
}

}  // namespace
}  // namespace tidepool
