#include "security/access_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

// SHA-256 of "abc", FIPS 180-2 appendix B.1.
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

std::string Refusal(const std::string& text) {
  const absl::Status status = AccessTable::Parse(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

TEST(AccessTableTest, ATokenIsFoundByItsHash) {
  const absl::StatusOr<AccessTable> table = AccessTable::Parse(absl::StrCat("token ", kAbc, " acme user\n"));
  ASSERT_TRUE(table.ok()) << table.status();
  const AccessTable::Entry* entry = table->FindToken(TokenDigest("abc"));
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->tenant, "acme");
  EXPECT_EQ(entry->role, Role::kUser);
  EXPECT_EQ(entry->name, "token ba7816bf") << "of the hash, which is no secret";
  for (const char* other : {"", "ab", "abcd", "ABC", kAbc}) EXPECT_EQ(table->FindToken(TokenDigest(other)), nullptr);
}

TEST(AccessTableTest, ACertificateIsFoundByAnyOfItsNamesAndTheFirstLineCounts) {
  const absl::StatusOr<AccessTable> table = AccessTable::Parse("cert w.example * worker\ncert ops acme admin\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 2u);
  EXPECT_EQ(table->FindCertificate({"x", "w.example"})->role, Role::kWorker);
  EXPECT_EQ(table->FindCertificate({"ops"})->tenant, "acme");
  EXPECT_EQ(table->FindCertificate({"ops", "w.example"})->role, Role::kWorker);
  EXPECT_EQ(table->FindCertificate({"W.example", ""}), nullptr);
  EXPECT_EQ(table->FindCertificate({}), nullptr);
}

TEST(AccessTableTest, RatesAreATenantsOwnOrThoseOfAll) {
  const absl::StatusOr<AccessTable> table = AccessTable::Parse("rate * 60 -\nrate acme - 1000\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->LimitsOf("acme"), (RateLimits{.requests = 0, .generated_tokens = 1000}));
  EXPECT_EQ(table->LimitsOf("other"), (RateLimits{.requests = 60, .generated_tokens = 0}));
  EXPECT_EQ(AccessTable::Parse("")->LimitsOf("acme"), RateLimits());
}

TEST(AccessTableTest, CommentsBlankLinesAndLineEndsOfOthersAreAllowed) {
  const absl::StatusOr<AccessTable> table =
      AccessTable::Parse(absl::StrCat("# who\r\n\r\n \t\ncert\ta  b\tuser # why\r\ntoken ", kAbc, " b user"));
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->size(), 2u);
}

TEST(AccessTableTest, ABadLineIsNamedByItsNumberAndWhatItMayHold) {
  EXPECT_THAT(Refusal("cert a b user\n\ntoken abc acme user"), HasSubstr("line 3: 'abc' is not a SHA-256"));
  EXPECT_THAT(Refusal(absl::StrCat("token ", kAbc, "0 acme user")), HasSubstr("line 1: "));
  EXPECT_THAT(Refusal("password x y z"), HasSubstr("line 1: 'password' is not token, cert or rate"));
  EXPECT_THAT(Refusal("cert a b"), HasSubstr("3 words, 4 are needed: cert NAME TENANT ROLE"));
  EXPECT_THAT(Refusal("cert a b user now"), HasSubstr("5 words"));
  EXPECT_THAT(Refusal("cert a b root"), HasSubstr("role 'root' is not user, worker or admin"));
  EXPECT_THAT(Refusal("cert a * user"), HasSubstr("a user has one tenant"));
  EXPECT_THAT(Refusal(absl::StrCat("cert a ", std::string(129, 't'), " user")), HasSubstr("1 to 128"));
  EXPECT_THAT(Refusal("cert a t\x01 user"), HasSubstr("tenant 't\\x01'"));
  EXPECT_THAT(Refusal("cert \xc3\xa9 t user"), HasSubstr("visible ASCII"));
  EXPECT_THAT(Refusal("rate a 0 -"), HasSubstr("requests '0' is not in 1 to 1000000000000, or - for no limit"));
  EXPECT_THAT(Refusal("rate a - many"), HasSubstr("tokens 'many'"));
  EXPECT_THAT(Refusal("rate a 1000000000001 -"), HasSubstr("requests"));
}

TEST(AccessTableTest, NothingIsSaidTwice) {
  EXPECT_THAT(Refusal(absl::StrCat("token ", kAbc, " a user\ntoken ", kAbc, " b user")),
              HasSubstr("line 2: the token is there already"));
  EXPECT_THAT(Refusal("cert a b user\ncert a c user"), HasSubstr("line 2: the name is there already"));
  EXPECT_THAT(Refusal("rate a 1 1\nrate a 2 2"), HasSubstr("line 2: the rate of tenant a is there already"));
}

TEST(AccessTableTest, AFileHasALimit) {
  std::string lines;
  for (size_t i = 0; i < kMaxAccessLines; ++i) absl::StrAppend(&lines, "rate t", i, " 1 1\n");
  EXPECT_TRUE(AccessTable::Parse(lines).ok());
  EXPECT_THAT(Refusal(lines + "rate x 1 1"), HasSubstr("line 4097: more than 4096 entries"));
  EXPECT_THAT(Refusal(std::string(kMaxAccessFileBytes + 1, '\n')), HasSubstr("at most"));
}

}  // namespace
}  // namespace tidepool
