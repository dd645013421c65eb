#include "client/http/vocabulary.h"

#include <gtest/gtest.h>

namespace tidepool::http {
namespace {

TEST(VocabularyTest, PiecesAreCutByLengths) {
  const auto vocabulary = Vocabulary::Make("ab\xe4\xbd!", {1, 0, 1, 2, 1});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ((*vocabulary)->Piece(0), "a");
  EXPECT_EQ((*vocabulary)->Piece(1), "");
  EXPECT_EQ((*vocabulary)->Piece(2), "b");
  EXPECT_EQ((*vocabulary)->Piece(3), "\xe4\xbd");
  EXPECT_EQ((*vocabulary)->Piece(4), "!");
  EXPECT_EQ((*vocabulary)->Piece(5), "");
  EXPECT_EQ((*vocabulary)->Piece(-1), "");
}

TEST(VocabularyTest, LengthsThatAreNotTheTextsAreRefused) {
  EXPECT_FALSE(Vocabulary::Make("abc", {1, 3}).ok());
  EXPECT_FALSE(Vocabulary::Make("abc", {1, 1}).ok());
  EXPECT_FALSE(Vocabulary::Make("abc", {-1, 4}).ok());
}

}  // namespace
}  // namespace tidepool::http
