#include "worker/kv/query_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/bytes.h"

namespace tidepool {
namespace {

TEST(QueryRingTest, RemembersTheLastOnes) {
  QueryRing ring(2, 3, 1);
  for (int i = 0; i < 5; ++i) {
    const float value = static_cast<float>(i);
    ring.Push(1, &value);
    EXPECT_EQ(ring.tokens(1), std::min(i + 1, 3));
    EXPECT_EQ(*ring.Token(1, ring.tokens(1) - 1), value);
  }
  EXPECT_EQ(*ring.Token(1, 0), 2.0f);
  EXPECT_EQ(ring.tokens(0), 0);
  ByteWriter out;
  ring.Save(out);
  const std::string bytes = std::move(out).Take();
  QueryRing copy(2, 3, 1), other(2, 4, 1);
  ByteReader in(bytes), in_other(bytes);
  EXPECT_TRUE(copy.Load(in));
  EXPECT_EQ(*copy.Token(1, 0), 2.0f);
  EXPECT_FALSE(other.Load(in_other));
}

}  // namespace
}  // namespace tidepool
