#include "cacheservice/resp/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "cacheservice/resp/command.h"

namespace tidepool {
namespace {

using Type = RespReply::Type;

RespReply Only(const std::string& bytes) {
  RespReader reader;
  EXPECT_TRUE(reader.Feed(bytes).ok());
  auto reply = reader.Next();
  EXPECT_TRUE(reply.ok() && reply->has_value()) << reply.status();
  auto more = reader.Next();
  EXPECT_TRUE(more.ok() && !more->has_value()) << "one reply only";
  return **std::move(reply);
}

absl::Status FailureOf(const std::string& bytes, const RespLimits& limits = {}) {
  RespReader reader(limits);
  for (const char c : bytes) {
    if (absl::Status fed = reader.Feed({&c, 1}); !fed.ok()) return fed;
    auto reply = reader.Next();
    if (!reply.ok()) return reply.status();
    if (reply->has_value()) return absl::OkStatus();
  }
  return absl::UnknownError("no whole reply");
}

TEST(RespReaderTest, EveryTypeOfReply) {
  EXPECT_EQ(Only("+OK\r\n").text, "OK");
  EXPECT_TRUE(Only("+OK\r\n").is(Type::kStatus));
  EXPECT_EQ(Only(":-12\r\n").integer, -12);
  EXPECT_TRUE(Only("$-1\r\n").is(Type::kNil));
  EXPECT_TRUE(Only("*-1\r\n").is(Type::kNil));
  EXPECT_EQ(Only(std::string("$5\r\na\r\n\0b\r\n", 11)).text, std::string("a\r\n\0b", 5));
  EXPECT_TRUE(Only("*0\r\n").elements.empty());
  const RespReply nested = Only("*3\r\n:1\r\n*2\r\n$1\r\nx\r\n$-1\r\n+y\r\n");
  ASSERT_EQ(nested.elements.size(), 3u);
  EXPECT_EQ(nested.elements[1].elements[0].text, "x");
  EXPECT_TRUE(nested.elements[1].elements[1].is(Type::kNil));
  EXPECT_EQ(nested.elements[2].text, "y");
}

TEST(RespReaderTest, AnErrorIsKnownByItsFirstWordAndSafeToPrint) {
  const RespReply error = Only("-MOVED 3999 127.0.0.1:6381\r\n");
  EXPECT_TRUE(error.IsError("MOVED"));
  EXPECT_FALSE(error.IsError("MOV"));
  EXPECT_FALSE(error.IsError("MOVED 3999 127.0.0.1:6381 "));
  EXPECT_FALSE(Only("+MOVED\r\n").IsError("MOVED"));
  EXPECT_EQ(Only("-ERR \x1b[2J\x80\r\n").text, "ERR ?[2J?");
  EXPECT_EQ(Only(absl::StrCat("-", std::string(10'000, 'x'), "\r\n")).text.size(), 512u);
}

TEST(RespReaderTest, RepliesComeInPiecesOrManyAtOnce) {
  const std::string bytes = "*2\r\n$3\r\nabc\r\n:7\r\n+OK\r\n$0\r\n\r\n";
  for (size_t step : {size_t{1}, size_t{3}, bytes.size()}) {
    RespReader reader;
    std::vector<RespReply> replies;
    for (size_t at = 0; at < bytes.size(); at += step) {
      ASSERT_TRUE(reader.Feed(std::string_view(bytes).substr(at, step)).ok());
      for (auto reply = reader.Next(); reply.ok() && reply->has_value(); reply = reader.Next()) {
        replies.push_back(**std::move(reply));
      }
    }
    ASSERT_EQ(replies.size(), 3u) << step;
    EXPECT_EQ(replies[0].elements[0].text, "abc");
    EXPECT_EQ(replies[0].elements[1].integer, 7);
    EXPECT_EQ(replies[1].text, "OK");
    EXPECT_EQ(replies[2].text, "");
  }
}

TEST(RespReaderTest, WhatIsNoReplyIsDataLoss) {
  for (const char* bytes : {"hello\r\n", "$x\r\n", "$-2\r\n", "*-2\r\n", "*99999999999999\r\n", ":\r\n", ":1a\r\n"}) {
    EXPECT_EQ(FailureOf(bytes).code(), absl::StatusCode::kDataLoss) << bytes;
  }
}

TEST(RespReaderTest, NestingIsLimited) {
  std::string bytes;
  for (int i = 0; i < 20; ++i) bytes += "*1\r\n";
  EXPECT_EQ(FailureOf(bytes).code(), absl::StatusCode::kDataLoss);
}

TEST(RespReaderTest, NoReplyIsLargerThanTheLimit) {
  const RespLimits limits = {.reply_bytes = 100, .elements = 10};
  const auto refused = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(FailureOf(absl::StrCat("$100\r\n", std::string(100, 'x'), "\r\n"), limits), absl::OkStatus());
  EXPECT_EQ(FailureOf(absl::StrCat("$101\r\n", std::string(101, 'x'), "\r\n"), limits).code(), refused);
  EXPECT_EQ(FailureOf(absl::StrCat("$9999999999\r\n", std::string(200, 'x')), limits).code(), refused) << "announced";
  EXPECT_EQ(FailureOf(absl::StrCat("+", std::string(200, 'x')), limits).code(), refused) << "a line without end";
  std::string many = "*9\r\n";
  for (int i = 0; i < 9; ++i) many += "$12\r\nabcdefghijkl\r\n";
  EXPECT_EQ(FailureOf(many, limits).code(), refused) << "all texts together";
  EXPECT_EQ(FailureOf("*11\r\n", limits).code(), refused);
  EXPECT_EQ(FailureOf("*2\r\n*9\r\n", limits).code(), refused) << "all elements together";
}

TEST(RespCommandTest, ArgumentsAreCountedBytes) {
  const std::string_view arguments[] = {"SET", std::string_view("a\r\n\0", 4), ""};
  EXPECT_EQ(RespCommand(arguments).bytes(), std::string_view("*3\r\n$3\r\nSET\r\n$4\r\na\r\n\0\r\n$0\r\n\r\n", 29));
}

}  // namespace
}  // namespace tidepool
