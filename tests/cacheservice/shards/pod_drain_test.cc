// A pod hands on what it has to real services on loopback before it goes (cacheservice/rpc/pod_drain.h).
#include "cacheservice/rpc/pod_drain.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "cacheservice/rocksdb/database.h"
#include "cacheservice/rpc/pod_name.h"
#include "tests/cacheservice/shards/pods.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

using State = CachePodStats::State;
using test::Chain;
using test::Manifest;
using test::OffloadAll;
using test::Pods;
using test::Soon;
using test::WaitForState;
using testing::HasSubstr;

constexpr int kBlocks = 30;

struct Drained {
  grpc::Status status;
  std::vector<v1::DrainProgress> progress;
};

Drained Drain(const std::string& address, bool all_blocks = false) {
  const auto admin = v1::CacheAdmin::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(Soon()));
  v1::DrainRequest request;
  request.set_all_blocks(all_blocks);
  const auto stream = admin->Drain(&context, request);
  Drained drained;
  v1::DrainProgress progress;
  while (stream->Read(&progress)) drained.progress.push_back(progress);
  drained.status = stream->Finish();
  return drained;
}

// Three pods of which each knows all.
class PodDrainTest : public testing::Test {
 protected:
  PodDrainTest() : pods_(3) {
    const std::string peers = absl::StrCat(pods_.address(0), ",", pods_.address(1), ",", pods_.address(2));
    for (int pod = 0; pod < 3; ++pod) pods_.Stop(pod);
    pods_.set_peers(peers);
    for (int pod = 0; pod < 3; ++pod) pods_.Start(pod);
    cache_ = pods_.Connect();
  }

  Pods pods_;
  std::unique_ptr<ShardedCache> cache_;
};

TEST_F(PodDrainTest, SessionsAndTheirBlocksAreElsewhereWhenThePodGoes) {
  OffloadAll(*cache_, 0, kBlocks, /*durable=*/true);
  for (int session = 0; session < 10; ++session) {
    ASSERT_TRUE(cache_->Put(Manifest(absl::StrCat("s", session), 1), Soon()).ok());
  }
  const Drained drained = Drain(pods_.address(1));
  ASSERT_TRUE(drained.status.ok()) << drained.status.error_message();
  ASSERT_FALSE(drained.progress.empty());
  const v1::DrainProgress& last = drained.progress.back();
  EXPECT_TRUE(last.drained());
  EXPECT_GT(last.sessions(), 0u);
  EXPECT_EQ(last.sessions_copied(), last.sessions());
  EXPECT_GT(last.blocks(), 0u);
  EXPECT_EQ(last.blocks_copied(), last.blocks());
  EXPECT_GT(last.bytes_copied(), 0u);
  EXPECT_EQ(last.sessions_failed() + last.blocks_failed(), 0u);

  WaitForState(*cache_, 1, State::kDraining);
  const int64_t before = test::PodStats(*cache_, 1).offloaded_blocks;
  OffloadAll(*cache_, kBlocks, 2 * kBlocks);
  EXPECT_EQ(test::PodStats(*cache_, 1).offloaded_blocks, before);
  pods_.Stop(1);
  EXPECT_EQ(cache_->LookupPrefix(Chain(2 * kBlocks), Soon())->blocks, 2 * kBlocks);
  for (int session = 0; session < 10; ++session) {
    const auto manifest = cache_->Get("default", absl::StrCat("s", session), Soon());
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    ASSERT_TRUE(manifest->has_value()) << session;
    EXPECT_EQ((*manifest)->engine_state, Manifest(absl::StrCat("s", session), 1).engine_state);
  }
  // On two pods each, again.
  pods_.Stop(0);
  for (int session = 0; session < 10; ++session) {
    EXPECT_EQ(*pods_.ConnectOne(2)->Revision("default", absl::StrCat("s", session), Soon()), 1);
  }
}

TEST_F(PodDrainTest, ADrainedPodRefusesWhatIsNewAndStillAnswersReads) {
  const auto one = pods_.ConnectOne(0);
  OffloadAll(*one, 0, 3, /*durable=*/true);
  ASSERT_TRUE(one->Put(Manifest("s", 1), Soon()).ok());
  ASSERT_TRUE(Drain(pods_.address(0)).status.ok());
  const absl::Status refused = test::Offload(*one, 5, 0).get();
  EXPECT_TRUE(absl::IsUnavailable(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("pod-0 has been drained"));
  EXPECT_TRUE(absl::IsUnavailable(one->Put(Manifest("s", 2), Soon())));
  EXPECT_EQ(one->LookupPrefix(Chain(5), Soon())->blocks, 3);
  EXPECT_TRUE((*one->Get("default", "s", Soon())).has_value());
  EXPECT_TRUE(one->Probe(Soon())->draining);
}

TEST_F(PodDrainTest, BlocksThatNoSessionNeedsGoOnlyWhenAsked) {
  const auto one = pods_.ConnectOne(0);
  OffloadAll(*one, 0, 10);
  const Drained some = Drain(pods_.address(0));
  ASSERT_TRUE(some.status.ok()) << some.status.error_message();
  EXPECT_EQ(some.progress.back().blocks(), 0u);
  const Drained all = Drain(pods_.address(0), /*all_blocks=*/true);
  ASSERT_TRUE(all.status.ok()) << all.status.error_message();
  EXPECT_EQ(all.progress.back().blocks_copied(), 30u);
  pods_.Stop(0);
  EXPECT_EQ(cache_->LookupPrefix(Chain(10), Soon())->blocks, 10);
}

TEST_F(PodDrainTest, WithoutAPeerThatTakesItThePodGoesOnAsBefore) {
  pods_.Stop(1);
  pods_.Stop(2);
  const auto one = pods_.ConnectOne(0);
  OffloadAll(*one, 0, 1, /*durable=*/true);
  const Drained drained = Drain(pods_.address(0));
  EXPECT_EQ(drained.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(drained.status.error_message(), HasSubstr("--peers"));
  ASSERT_FALSE(drained.progress.empty());
  EXPECT_FALSE(drained.progress.back().drained());
  EXPECT_FALSE(one->Probe(Soon())->draining);
  OffloadAll(*one, 1, 2, /*durable=*/true);
}

TEST(PodDrainWithoutPeersTest, ADrainIsRefused) {
  const Pods pods(1);
  const Drained drained = Drain(pods.address(0));
  EXPECT_EQ(drained.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(drained.status.error_message(), HasSubstr("--peers"));
}

TEST(PodNameTest, ItBelongsToTheDataUnlessItIsGiven) {
  const test::TempDir dir, other_dir;
  DatabaseOptions options, other;
  options.data_dir = dir.path();
  other.data_dir = other_dir.path();
  std::string name;
  {
    const auto database = *Database::Open(options);
    name = *PodName("", database.get());
    EXPECT_EQ(name.size(), 20u);
    EXPECT_EQ(*PodName("mine", database.get()), "mine");
    for (const std::string& bad : {std::string("a b"), std::string("\x80"), std::string(129, 'x')}) {
      EXPECT_TRUE(absl::IsInvalidArgument(PodName(bad, database.get()).status()));
    }
  }
  const auto database = *Database::Open(options), another = *Database::Open(other);
  EXPECT_EQ(*PodName("", database.get()), name);
  EXPECT_NE(*PodName("", another.get()), name);
}

}  // namespace
}  // namespace tidepool
