#include "cacheservice/manifests/manifest_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/blocks.h"

namespace tidepool {
namespace {

using testing::AllOf;
using testing::HasSubstr;

SessionManifest Example() {
  SessionManifest manifest;
  manifest.tenant = "acme";
  manifest.session_id = "session-1";
  manifest.model_fingerprint = "sha256:abc";
  manifest.revision = 7;
  manifest.updated_unix_ms = 1700000000123;
  manifest.token_ids = {1, 2, -3, std::numeric_limits<int32_t>::max()};
  manifest.block_keys = {test::NumberedKey(1), test::NumberedKey(2)};
  manifest.preset = "h2o-20";
  manifest.engine_state = std::string("\0\x01state\xff", 8);
  return manifest;
}

TEST(ManifestCodecTest, AManifestComesBackEqual) {
  const EncodedManifest encoded = EncodeManifest(Example());
  EXPECT_EQ(*DecodeManifest(encoded.head, encoded.body), Example());
}

TEST(ManifestCodecTest, RandomManifestsComeBackEqual) {
  std::mt19937 random(1);
  const auto bytes = [&random](size_t most) {
    std::string text(random() % (most + 1), '\0');
    for (char& c : text) c = static_cast<char>(random());
    return text;
  };
  for (int round = 0; round < 200; ++round) {
    SessionManifest manifest;
    manifest.tenant = "t" + absl::StrCat(random());
    manifest.session_id = "s" + absl::StrCat(random());
    manifest.model_fingerprint = "m" + bytes(kMaxModelFingerprintBytes - 1);
    manifest.preset = bytes(kMaxPresetBytes);
    manifest.revision = 1 + static_cast<int64_t>(random());
    manifest.updated_unix_ms = static_cast<int64_t>(random()) - (int64_t{1} << 31);
    for (unsigned i = random() % 50; i > 0; --i) manifest.token_ids.push_back(static_cast<int32_t>(random()));
    for (unsigned i = random() % 10; i > 0; --i) manifest.block_keys.push_back(test::NumberedKey(static_cast<int>(i)));
    manifest.engine_state = bytes(1000);
    ASSERT_EQ(ValidateManifest(manifest), absl::OkStatus());
    const EncodedManifest encoded = EncodeManifest(manifest);
    ASSERT_EQ(*DecodeManifest(encoded.head, encoded.body), manifest) << "round " << round;
  }
}

TEST(ManifestCodecTest, TheHeadAloneGivesTheSummary) {
  const EncodedManifest encoded = EncodeManifest(Example());
  const ManifestSummary summary = *DecodeManifestHead(encoded.head);
  EXPECT_EQ(summary.tenant, "acme");
  EXPECT_EQ(summary.session_id, "session-1");
  EXPECT_EQ(summary.model_fingerprint, "sha256:abc");
  EXPECT_EQ(summary.preset, "h2o-20");
  EXPECT_EQ(summary.revision, 7);
  EXPECT_EQ(summary.updated_unix_ms, 1700000000123);
  EXPECT_EQ(summary.tokens, 4);
  EXPECT_EQ(summary.blocks, 2);
  EXPECT_EQ(summary.body_bytes, static_cast<int64_t>(encoded.body.size()));
}

TEST(ManifestCodecTest, EveryTruncationIsDataLoss) {
  const EncodedManifest encoded = EncodeManifest(Example());
  for (size_t size = 0; size < encoded.head.size(); ++size) {
    const std::string head = encoded.head.substr(0, size);
    EXPECT_EQ(DecodeManifestHead(head).status().code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_EQ(DecodeManifest(head, encoded.body).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  for (size_t size = 0; size < encoded.body.size(); ++size) {
    EXPECT_EQ(DecodeManifest(encoded.head, encoded.body.substr(0, size)).status().code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(DecodeManifest(encoded.head + "x", encoded.body).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeManifest(encoded.head, encoded.body + "x").status().code(), absl::StatusCode::kDataLoss);
}

TEST(ManifestCodecTest, EveryFlippedBitIsDataLoss) {
  const EncodedManifest encoded = EncodeManifest(Example());
  const auto each_flip = [](const std::string& record, const std::function<void(const std::string&)>& check) {
    for (size_t byte = 0; byte < record.size(); ++byte) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string damaged = record;
        damaged[byte] ^= static_cast<char>(1 << bit);
        check(damaged);
      }
    }
  };
  each_flip(encoded.head, [&encoded](const std::string& head) {
    EXPECT_EQ(DecodeManifestHead(head).status().code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(DecodeManifest(head, encoded.body).status().code(), absl::StatusCode::kDataLoss);
  });
  each_flip(encoded.body, [&encoded](const std::string& body) {
    EXPECT_EQ(DecodeManifest(encoded.head, body).status().code(), absl::StatusCode::kDataLoss);
  });
}

TEST(ManifestCodecTest, AHeadBelongsToOneBody) {
  SessionManifest other = Example();
  other.token_ids[0] = 9;
  const EncodedManifest one = EncodeManifest(Example()), two = EncodeManifest(other);
  ASSERT_EQ(one.body.size(), two.body.size());
  EXPECT_THAT(std::string(DecodeManifest(one.head, two.body).status().message()), HasSubstr("not the head's"));
}

TEST(ManifestCodecTest, AFieldOutOfRangeIsNamedWithItsRange) {
  struct Case {
    std::string field;
    size_t least, most;
    std::function<void(SessionManifest&, size_t)> resize;
  };
  const std::vector<Case> cases = {
      {"tenant", 1, 128, [](SessionManifest& m, size_t n) { m.tenant.assign(n, 'x'); }},
      {"session_id", 1, 128, [](SessionManifest& m, size_t n) { m.session_id.assign(n, 'x'); }},
      {"model_fingerprint", 1, 256, [](SessionManifest& m, size_t n) { m.model_fingerprint.assign(n, 'x'); }},
      {"preset", 0, 256, [](SessionManifest& m, size_t n) { m.preset.assign(n, 'x'); }},
      {"token_ids", 0, 4194304, [](SessionManifest& m, size_t n) { m.token_ids.resize(n); }},
      {"block_keys", 0, 4194304, [](SessionManifest& m, size_t n) { m.block_keys.resize(n); }},
  };
  for (const Case& one : cases) {
    SessionManifest manifest = Example();
    for (const size_t size : {one.least, one.most}) {
      one.resize(manifest, size);
      EXPECT_EQ(ValidateManifest(manifest), absl::OkStatus()) << one.field;
    }
    one.resize(manifest, one.most + 1);
    const absl::Status status = ValidateManifest(manifest);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(absl::StrCat("manifest.", one.field)), HasSubstr(absl::StrCat(one.most + 1)),
                      HasSubstr(absl::StrCat(one.least, " to ", one.most))));
    if (one.least == 0) continue;
    one.resize(manifest, 0);
    EXPECT_EQ(ValidateManifest(manifest).code(), absl::StatusCode::kInvalidArgument) << one.field;
  }
}

TEST(ManifestCodecTest, ZeroBytesInNamesAndRevisionsBelowOneAreRefused) {
  SessionManifest manifest = Example();
  manifest.tenant = std::string("a\0b", 3);
  EXPECT_EQ(ValidateManifest(manifest).code(), absl::StatusCode::kInvalidArgument);
  manifest = Example();
  manifest.session_id = std::string("a\0b", 3);
  EXPECT_EQ(ValidateManifest(manifest).code(), absl::StatusCode::kInvalidArgument);
  for (const int64_t revision : {int64_t{0}, int64_t{-1}, std::numeric_limits<int64_t>::min()}) {
    manifest = Example();
    manifest.revision = revision;
    EXPECT_THAT(std::string(ValidateManifest(manifest).message()),
                HasSubstr(absl::StrCat("manifest.revision: ", revision)));
  }
}

}  // namespace
}  // namespace tidepool
