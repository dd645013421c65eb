#include "client/answer_so_far.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

namespace tidepool::client {
namespace {

v1::Tokens Piece(std::initializer_list<int> ids, const std::string& text) {
  v1::Tokens tokens;
  for (const int id : ids) {
    tokens.add_ids(id);
    tokens.add_logprobs()->set_token(id);
  }
  tokens.set_text(text);
  return tokens;
}

// "IDS TEXT" of what is new.
std::string New(AnswerSoFar& so_far, const v1::Tokens& tokens) {
  const absl::StatusOr<v1::Tokens> piece = so_far.New(tokens);
  if (!piece.ok()) return std::string(piece.status().message());
  std::string text;
  EXPECT_EQ(piece->ids_size(), piece->logprobs_size());
  for (int i = 0; i < piece->ids_size(); ++i) {
    text += std::to_string(piece->ids(i)) + ",";
    EXPECT_EQ(piece->ids(i), piece->logprobs(i).token());
  }
  return text + " " + piece->text();
}

TEST(AnswerSoFarTest, WhatIsKnownIsLeftOutHoweverItIsCut) {
  AnswerSoFar so_far;
  EXPECT_FALSE(so_far.begun());
  EXPECT_EQ(New(so_far, Piece({1, 2}, "ab")), "1,2, ab");
  EXPECT_EQ(New(so_far, Piece({3}, "")), "3, ");  // text that is held back
  EXPECT_TRUE(so_far.begun());
  so_far.Restart();
  EXPECT_EQ(New(so_far, Piece({1}, "a")), " ");
  EXPECT_EQ(New(so_far, Piece({2, 3, 4, 5}, "bcde")), "4,5, cde");
  EXPECT_EQ(New(so_far, Piece({6}, "f")), "6, f");
  so_far.Restart();
  EXPECT_EQ(New(so_far, Piece({1, 2, 3, 4, 5, 6, 7}, "abcdefg")), "7, g");
}

TEST(AnswerSoFarTest, AnotherAnswerIsRefused) {
  for (const v1::Tokens& other : {Piece({1, 9}, "ab"), Piece({1, 2}, "ax")}) {
    AnswerSoFar so_far;
    ASSERT_TRUE(so_far.New(Piece({1, 2, 3}, "abc")).ok());
    so_far.Restart();
    EXPECT_TRUE(absl::IsAborted(so_far.New(other).status()));
  }
}

TEST(AnswerSoFarTest, AWorkerHasGoneWhenItIsNotThereOrEndsTheCall) {
  EXPECT_TRUE(WorkerHasGone(absl::UnavailableError(""), false));
  EXPECT_TRUE(WorkerHasGone(absl::CancelledError(""), false));
  EXPECT_FALSE(WorkerHasGone(absl::CancelledError(""), true));
  EXPECT_FALSE(WorkerHasGone(absl::OkStatus(), false));
  EXPECT_FALSE(WorkerHasGone(absl::AbortedError(""), false));
}

}  // namespace
}  // namespace tidepool::client
