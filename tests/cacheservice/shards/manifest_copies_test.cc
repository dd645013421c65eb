// Session manifests over several real services on loopback that come and go.
#include "cacheservice/shards/manifest_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/cacheservice/shards/pods.h"

namespace tidepool {
namespace {

using State = CachePodStats::State;
using test::Manifest;
using test::Pods;
using test::Soon;
using test::WaitForState;
using testing::HasSubstr;

constexpr int kSessions = 12;

std::string Name(int session) { return absl::StrCat("s", session); }

int64_t RevisionOn(const Pods& pods, int pod, const std::string& session) {
  return pods.ConnectOne(pod)->Revision("default", session, Soon())->value_or(0);
}

int64_t RevisionOf(ShardedCache& cache, const std::string& session) {
  const auto manifest = cache.Get("default", session, Soon());
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  if (!manifest.ok() || !manifest->has_value()) return 0;
  EXPECT_EQ((*manifest)->engine_state, Manifest(session, (*manifest)->revision).engine_state);
  return (*manifest)->revision;
}

void PutAll(ShardedCache& cache, int64_t revision) {
  for (int session = 0; session < kSessions; ++session) {
    const absl::Status put = cache.Put(Manifest(Name(session), revision), Soon());
    EXPECT_TRUE(put.ok()) << put;
  }
}

TEST(ManifestCopiesTest, AManifestIsOnTwoPodsAndReadFromEither) {
  Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  PutAll(*cache, 2);
  int copies = 0;
  for (int session = 0; session < kSessions; ++session) {
    for (int pod = 0; pod < 3; ++pod) copies += RevisionOn(pods, pod, Name(session)) == 2;
  }
  EXPECT_EQ(copies, 2 * kSessions);
  EXPECT_EQ(RevisionOf(*cache, "nobody"), 0);
  for (int pod = 0; pod < 3; ++pod) {
    pods.Stop(pod);
    for (int session = 0; session < kSessions; ++session) EXPECT_EQ(RevisionOf(*cache, Name(session)), 2);
    WaitForState(*cache, pod, State::kDown);
    pods.Start(pod);
    WaitForState(*cache, pod, State::kUp);
  }
  EXPECT_EQ(cache->Stats().degraded_manifests, 0);
}

TEST(ManifestCopiesTest, TheNewestTurnWinsOverACopyThatSleptAndIsGivenToIt) {
  Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  pods.Stop(0);
  PutAll(*cache, 2);  // on the two others: nothing is degraded
  PutAll(*cache, 3);
  EXPECT_EQ(cache->Stats().degraded_manifests, 0);
  WaitForState(*cache, 0, State::kDown);
  pods.Start(0);
  WaitForState(*cache, 0, State::kUp);
  for (int session = 0; session < kSessions; ++session) EXPECT_EQ(RevisionOf(*cache, Name(session)), 3);
  // What pod 0 had of old is brought up to date, behind the answers.
  for (int session = 0; session < kSessions; ++session) {
    EXPECT_TRUE(test::Eventually([&] {
      const int64_t revision = RevisionOn(pods, 0, Name(session));
      if (revision != 0 && revision != 3) RevisionOf(*cache, Name(session));
      return revision == 0 || revision == 3;
    }));
  }
  EXPECT_GT(cache->Stats().repaired_manifests, 0);
  PutAll(*cache, 4);
  EXPECT_EQ(RevisionOf(*cache, Name(0)), 4);
}

TEST(ManifestCopiesTest, ATurnFollowsAlsoWhereTheFirstPodHasMissedSome) {
  Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  pods.Stop(0);
  PutAll(*cache, 2);
  PutAll(*cache, 3);
  WaitForState(*cache, 0, State::kDown);
  pods.Start(0);
  WaitForState(*cache, 0, State::kUp);
  PutAll(*cache, 4);  // without a read before
  for (int session = 0; session < kSessions; ++session) EXPECT_EQ(RevisionOf(*cache, Name(session)), 4);
}

TEST(ManifestCopiesTest, ATurnThatDoesNotFollowIsAbortedNamingBoth) {
  const Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  PutAll(*cache, 2);
  for (const int64_t revision : {1, 4}) {
    const absl::Status put = cache->Put(Manifest(Name(0), revision), Soon());
    EXPECT_TRUE(absl::IsAborted(put)) << put;
    EXPECT_THAT(std::string(put.message()), HasSubstr(absl::StrCat("revision ", revision)));
    EXPECT_THAT(std::string(put.message()), HasSubstr("stored revision 2"));
  }
  // Another worker's turn of the same revision; the very same one again is the answer that was lost.
  SessionManifest other = Manifest(Name(0), 2);
  other.engine_state = "another answer";
  EXPECT_TRUE(absl::IsAborted(cache->Put(other, Soon())));
  EXPECT_TRUE(cache->Put(Manifest(Name(0), 2), Soon()).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(cache->Put(Manifest("", 1), Soon())));
  EXPECT_EQ(RevisionOf(*cache, Name(0)), 2);
}

TEST(ManifestCopiesTest, OneCopyIsAcknowledgedAndCountedWhereThereIsOnlyOnePod) {
  Pods pods(2);
  auto cache = pods.Connect();
  pods.Stop(1);
  PutAll(*cache, 1);
  EXPECT_EQ(cache->Stats().degraded_manifests, kSessions);
  EXPECT_EQ(RevisionOf(*cache, Name(0)), 1);
  WaitForState(*cache, 1, State::kDown);
  pods.Start(1);
  WaitForState(*cache, 1, State::kUp);
  // The next read gives it to the other pod.
  EXPECT_EQ(RevisionOf(*cache, Name(0)), 1);
  EXPECT_TRUE(test::Eventually([&] { return RevisionOn(pods, 1, Name(0)) == 1; }));
}

TEST(ManifestCopiesTest, WhereBothPodsOfASessionAreAwayNoOlderTurnIsGivenOut) {
  Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  std::vector<std::vector<int64_t>> on(kSessions);
  for (int session = 0; session < kSessions; ++session) {
    for (int pod = 0; pod < 3; ++pod) on[session].push_back(RevisionOn(pods, pod, Name(session)));
  }
  pods.Stop(0);
  pods.Stop(1);
  WaitForState(*cache, 0, State::kDown);
  WaitForState(*cache, 1, State::kDown);
  int refused = 0;
  for (int session = 0; session < kSessions; ++session) {
    const auto manifest = cache->Get("default", Name(session), Soon());
    if (on[session][2] == 1) {
      ASSERT_TRUE(manifest.ok()) << manifest.status();
      EXPECT_EQ((*manifest)->revision, 1);
    } else {
      EXPECT_TRUE(absl::IsUnavailable(manifest.status())) << "session " << session;
      ++refused;
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_LT(refused, kSessions);
}

TEST(ManifestCopiesTest, OnePodThatDoesNotAnswerIsNoSessionLess) {
  Pods pods(1);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  pods.Stop(0);
  EXPECT_TRUE(absl::IsUnavailable(cache->Get("default", Name(0), Soon()).status()));  // when the call fails
  WaitForState(*cache, 0, State::kDown);
  EXPECT_TRUE(absl::IsUnavailable(cache->Get("default", Name(0), Soon()).status()));  // and when it is given up
  EXPECT_TRUE(absl::IsUnavailable(cache->Put(Manifest(Name(0), 2), Soon())));
  EXPECT_TRUE(absl::IsUnavailable(cache->Delete("default", Name(0), Soon())));
}

TEST(ManifestCopiesTest, ADeletionThatAPodHasMissedIsDoneBeforeItIsUsedAgain) {
  Pods pods(3);
  auto cache = pods.Connect();
  PutAll(*cache, 1);
  pods.Stop(2);
  for (int session = 0; session < kSessions; ++session) {
    EXPECT_TRUE(cache->Delete("default", Name(session), Soon()).ok());
  }
  WaitForState(*cache, 2, State::kDown);
  pods.Start(2);
  WaitForState(*cache, 2, State::kUp);
  for (int session = 0; session < kSessions; ++session) EXPECT_EQ(RevisionOf(*cache, Name(session)), 0) << session;
  EXPECT_TRUE(cache->Delete("default", "nobody", Soon()).ok());
  PutAll(*cache, 1);  // ids can be used again
}

}  // namespace
}  // namespace tidepool
