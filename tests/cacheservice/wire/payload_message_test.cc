#include "cacheservice/wire/payload_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "cacheservice/wire/messages.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {
namespace {

std::string BytesOf(const grpc::ByteBuffer& message) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(message.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

// As the network may bring it: in pieces of up to `most` bytes, some of them empty.
grpc::ByteBuffer InPieces(const std::string& bytes, size_t most, std::mt19937* random) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size();) {
    const size_t piece = std::min(bytes.size() - at, std::uniform_int_distribution<size_t>(0, most)(*random));
    slices.emplace_back(bytes.data() + at, piece);
    at += piece;
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

v1::BlockFrame SomeFrame() {
  v1::BlockFrame frame;
  frame.set_sequence(1'000'000'007);
  frame.mutable_block()->set_key(std::string(16, 'k'));
  frame.mutable_block()->set_layer(3);
  frame.set_value_bytes(70'000);
  frame.set_durable(true);
  frame.set_checksum(0xdeadbeef);
  frame.set_parent_key(std::string(16, 'p'));
  return frame;
}

std::shared_ptr<const std::string> SomePayload(size_t size) {
  std::string bytes(size, '\0');
  std::mt19937 random(static_cast<unsigned>(size));
  for (char& byte : bytes) byte = static_cast<char>(random());
  return std::make_shared<const std::string>(std::move(bytes));
}

TEST(PayloadMessageTest, IsWhatProtobufReads) {
  const auto payload = SomePayload(70'000);
  v1::OffloadRequest offload;
  ASSERT_TRUE(offload.ParseFromString(
      BytesOf(WithPayload(SomeFrame(), kBlockFramePayload, SharedSlice(payload, 100, payload->size() - 100)))));
  v1::BlockFrame expected = SomeFrame();
  expected.set_payload(payload->substr(100));
  EXPECT_EQ(offload.frame().SerializeAsString(), expected.SerializeAsString());

  v1::FetchBlocksResponse fetched;
  fetched.set_index(7);
  fetched.set_checksum(9);
  v1::FetchBlocksResponse read;
  ASSERT_TRUE(
      read.ParseFromString(BytesOf(WithPayload(fetched, kFetchedPayload, SharedSlice(payload, 0, payload->size())))));
  EXPECT_EQ(read.payload(), *payload);
  EXPECT_EQ(read.index(), 7);
  EXPECT_EQ(read.checksum(), 9);
}

TEST(PayloadMessageTest, ReadsWhatProtobufWrote) {
  std::mt19937 random(5);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{127}, size_t{128}, size_t{70'000}}) {
    for (const size_t most : {size_t{1}, size_t{7}, size_t{30}, size_t{100'000}}) {
      const auto payload = SomePayload(size);
      v1::OffloadRequest sent;
      *sent.mutable_frame() = SomeFrame();
      sent.mutable_frame()->set_payload(*payload);
      grpc::ByteBuffer bytes = InPieces(sent.SerializeAsString(), most, &random);
      v1::OffloadRequest request;
      Payload parts;
      ASSERT_TRUE(SplitPayload(&bytes, kBlockFramePayload, &request, &parts).ok());
      std::string read = "before";
      parts.AppendTo(&read);
      EXPECT_EQ(read, "before" + *payload);
      EXPECT_EQ(parts.size(), size);
      EXPECT_EQ(request.frame().SerializeAsString(), SomeFrame().SerializeAsString());

      v1::RecallResponse answer;
      answer.set_id(1);
      answer.add_found(3);
      answer.set_rows(*payload);
      answer.add_row_checksums(4);
      answer.set_more(true);
      bytes = InPieces(answer.SerializeAsString(), most, &random);
      v1::RecallResponse response;
      ASSERT_TRUE(SplitPayload(&bytes, kRecalledPayload, &response, &parts).ok());
      read.clear();
      parts.AppendTo(&read);
      EXPECT_EQ(read, *payload);
      answer.clear_rows();
      EXPECT_EQ(response.SerializeAsString(), answer.SerializeAsString());
    }
  }
}

TEST(PayloadMessageTest, MessagesWithoutPayloadAreReadToo) {
  v1::OffloadRequest hello;
  hello.mutable_hello()->set_tenant("somebody");
  grpc::ByteBuffer bytes = WithPayload(hello, {}, grpc::Slice());
  v1::OffloadRequest request;
  Payload payload;
  ASSERT_TRUE(SplitPayload(&bytes, kBlockFramePayload, &request, &payload).ok());
  EXPECT_EQ(request.hello().tenant(), "somebody");
  EXPECT_EQ(payload.size(), 0);
}

// Where a field is there twice, protobuf takes the last one.
TEST(PayloadMessageTest, TheLastPayloadCounts) {
  v1::FetchBlocksResponse first, second;
  first.set_payload("first");
  second.set_payload("second");
  second.set_index(2);
  std::mt19937 random(6);
  grpc::ByteBuffer bytes = InPieces(first.SerializeAsString() + second.SerializeAsString(), 3, &random);
  v1::FetchBlocksResponse response;
  Payload payload;
  ASSERT_TRUE(SplitPayload(&bytes, kFetchedPayload, &response, &payload).ok());
  std::string read;
  payload.AppendTo(&read);
  EXPECT_EQ(read, "second");
  EXPECT_EQ(response.index(), 2);
}

// A hello takes the frame's place, and a frame that follows is a new one, without the payload of the first.
TEST(PayloadMessageTest, TheLastOfAOneofCounts) {
  v1::OffloadRequest frame, hello, empty;
  *frame.mutable_frame() = SomeFrame();
  frame.mutable_frame()->set_payload("some payload");
  hello.mutable_hello()->set_tenant("somebody");
  empty.mutable_frame()->set_sequence(2);
  std::mt19937 random(8);
  for (const v1::OffloadRequest& last : {hello, empty}) {
    std::string sent = frame.SerializeAsString() + hello.SerializeAsString();
    if (last.has_frame()) sent += last.SerializeAsString();
    grpc::ByteBuffer bytes = InPieces(sent, 3, &random);
    v1::OffloadRequest request;
    Payload payload;
    ASSERT_TRUE(SplitPayload(&bytes, kBlockFramePayload, &request, &payload).ok());
    EXPECT_EQ(payload.size(), 0);
    EXPECT_EQ(request.SerializeAsString(), last.SerializeAsString());
  }
}

// Every prefix, and every byte changed: an error or a message, never a read past the end. What is accepted is accepted
// by protobuf, with the same payload.
TEST(PayloadMessageTest, DamagedMessagesAreReadAsProtobufReadsThem) {
  v1::OffloadRequest sent;
  *sent.mutable_frame() = SomeFrame();
  sent.mutable_frame()->set_payload("some payload");
  const std::string whole = sent.SerializeAsString();
  std::mt19937 random(7);
  std::vector<std::string> damaged;
  for (size_t size = 0; size < whole.size(); ++size) damaged.push_back(whole.substr(0, size));
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      damaged.push_back(whole);
      damaged.back()[at] = static_cast<char>(damaged.back()[at] ^ (1 << bit));
    }
  }
  int refused = 0;
  for (const std::string& bytes : damaged) {
    grpc::ByteBuffer buffer = InPieces(bytes, 9, &random);
    v1::OffloadRequest request, by_protobuf;
    Payload payload;
    if (!SplitPayload(&buffer, kBlockFramePayload, &request, &payload).ok()) {
      ++refused;
      continue;
    }
    ASSERT_TRUE(by_protobuf.ParseFromString(bytes));
    std::string read;
    payload.AppendTo(&read);
    EXPECT_EQ(read, by_protobuf.frame().payload());
  }
  EXPECT_GT(refused, static_cast<int>(whole.size()) / 2);
}

TEST(PayloadMessageTest, ASliceKeepsItsOwner) {
  auto owner = std::make_shared<const std::string>("0123456789");
  std::weak_ptr<const std::string> alive = owner;
  {
    const grpc::Slice slice = SharedSlice(owner, 2, 3);
    owner.reset();
    EXPECT_FALSE(alive.expired());
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(slice.begin()), slice.size()), "234");
  }
  EXPECT_TRUE(alive.expired());
}

TEST(FrameBytesForTest, FewFramesOfOneSize) {
  EXPECT_EQ(FrameBytesFor(0), 1);
  EXPECT_EQ(FrameBytesFor(1), 1);
  EXPECT_EQ(FrameBytesFor(kMaxFrameBytes), kMaxFrameBytes);
  EXPECT_EQ(FrameBytesFor(kMaxFrameBytes + 1), kMaxFrameBytes / 2 + 1);
  EXPECT_EQ(FrameBytesFor(3 * kMaxFrameBytes), kMaxFrameBytes);
}

}  // namespace
}  // namespace tidepool
