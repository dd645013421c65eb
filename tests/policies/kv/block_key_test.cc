#include "policies/kv/block_key.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

KvLayout Layout() {
  KvLayout layout;
  layout.model_fingerprint = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
  layout.layers = 30;
  layout.kv_heads = 3;
  layout.head_dim = 64;
  return layout;
}

std::vector<int32_t> Tokens(int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(1000 + i);
  return tokens;
}

// Stored blocks are found by these keys: a program that computes others finds nothing of what an earlier one stored.
TEST(BlockKeyTest, KeysAreTheGoldenOnes) {
  const BlockKey first = ChildBlockKey("salt", Layout(), kExactLineage, BlockKey(), Tokens(64));
  EXPECT_EQ(first.ToHex(), "05d9ca1d88603b1fd8ca7ee9f56f0f03");
  EXPECT_EQ(ChildBlockKey("salt", Layout(), kExactLineage, first, Tokens(1)).ToHex(),
            "a82e4e9a41fdfd51f2bc752657cd1aab");
}

TEST(BlockKeyTest, EqualInputsGiveEqualKeys) {
  EXPECT_EQ(ChildBlockKey("s", Layout(), "l", BlockKey(), Tokens(3)),
            ChildBlockKey("s", Layout(), "l", BlockKey(), Tokens(3)));
}

TEST(BlockKeyTest, EveryInputSeparatesKeys) {
  std::set<BlockKey> keys;
  int made = 0;
  auto add = [&](std::string_view salt, const KvLayout& layout, std::string_view lineage, const BlockKey& parent,
                 const std::vector<int32_t>& tokens) {
    keys.insert(ChildBlockKey(salt, layout, lineage, parent, tokens));
    ++made;
  };
  BlockKey parent;
  const KvLayout layout = Layout();
  add("salt", layout, kExactLineage, parent, Tokens(64));
  add("other", layout, kExactLineage, parent, Tokens(64));
  add("", layout, kExactLineage, parent, Tokens(64));
  add("salt", layout, "h2o/nonce", parent, Tokens(64));
  add("salt", layout, "", parent, Tokens(64));
  add("salt", layout, kExactLineage, parent, Tokens(63));
  parent.bytes[15] = 1;
  add("salt", layout, kExactLineage, parent, Tokens(64));
  parent = BlockKey();
  std::vector<int32_t> tokens = Tokens(64);
  tokens[0] ^= 1;
  add("salt", layout, kExactLineage, parent, tokens);
  for (auto change : std::vector<void (*)(KvLayout&)>{
           [](KvLayout& l) { l.model_fingerprint = "other"; }, [](KvLayout& l) { l.layers = 31; },
           [](KvLayout& l) { l.kv_heads = 4; }, [](KvLayout& l) { l.head_dim = 32; },
           [](KvLayout& l) { l.type = KvType::kF32; }}) {
    KvLayout other = layout;
    change(other);
    add("salt", other, kExactLineage, parent, Tokens(64));
  }
  EXPECT_EQ(static_cast<int>(keys.size()), made);
}

TEST(BlockKeyTest, NeighbouringFieldsDoNotRunIntoOneAnother) {
  KvLayout layout = Layout();
  layout.model_fingerprint = "bc";
  KvLayout shifted = layout;
  shifted.model_fingerprint = "c";
  EXPECT_NE(ChildBlockKey("a", layout, "l", BlockKey(), Tokens(1)),
            ChildBlockKey("ab", shifted, "l", BlockKey(), Tokens(1)));
}

TEST(BlockKeyTest, TenantsHaveSaltsOfTheirOwnThatNeedTheSecret) {
  std::set<std::string> salts;
  for (const char* secret : {"", "secret", "secreta"}) {
    for (const char* tenant : {"", "a", "b", "ab"}) salts.insert(SaltOfTenant(secret, tenant));
  }
  EXPECT_EQ(salts.size(), 12u);
  EXPECT_EQ(SaltOfTenant("secret", "a"), SaltOfTenant("secret", "a"));
}

TEST(BlockKeyTest, HexIsLowerCaseAndOrderIsThatOfTheBytes) {
  BlockKey low, high;
  low.bytes[0] = 0x0a;
  high.bytes[0] = 0xf0;
  EXPECT_EQ(high.ToHex(), "f0000000000000000000000000000000");
  EXPECT_LT(low, high);
  EXPECT_EQ(low.AsString().size(), 16u);
}

}  // namespace
}  // namespace tidepool
