// The worker's end against a service that answers wrongly, or not at all.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/checksum.h"
#include "cacheservice/remote/remote_cache.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/fault_proxy.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

// Takes everything and answers what the test says.
class StrangeService final : public v1::CacheStore::Service {
 public:
  grpc::Status Offload(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::OffloadResponse, v1::OffloadRequest>* stream) override {
    v1::OffloadRequest request;
    while (stream->Read(&request)) {
      v1::OffloadResponse response;
      if (request.has_frame() && refuses_frames) return {grpc::StatusCode::INVALID_ARGUMENT, "no blocks"};
      if (request.has_hello()) {
        response.mutable_accepted()->set_credit_bytes(16 << 20);
      } else if (answer_after == absl::ZeroDuration()) {
        continue;  // never answered
      } else {
        test::Tick(absl::ToChronoMilliseconds(answer_after));
        response.mutable_result()->set_sequence(request.frame().sequence());
        response.mutable_result()->set_code(offload_code);
        ++values;
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status Recall(grpc::ServerContext*,
                      grpc::ServerReaderWriter<v1::RecallResponse, v1::RecallRequest>* stream) override {
    v1::RecallRequest request;
    while (stream->Read(&request)) {
      if (!request.has_rows() || recall == nullptr) continue;
      v1::RecallResponse response;
      response.set_id(request.rows().id());
      recall(&response);
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status FetchBlocks(grpc::ServerContext*, const v1::FetchBlocksRequest* request,
                           grpc::ServerWriter<v1::FetchBlocksResponse>* writer) override {
    for (const v1::FetchBlocksResponse& frame : request->unchecked() ? frames : checked_frames) writer->Write(frame);
    return --breaks >= 0 ? Broken() : grpc::Status::OK;
  }
  grpc::Status PutManifest(grpc::ServerContext*, grpc::ServerReader<v1::ManifestFrame>* reader,
                           v1::PutManifestResponse*) override {
    v1::ManifestFrame frame;
    bool copy = false;
    while (reader->Read(&frame)) copy = copy || frame.copy();
    ++puts;
    if (--breaks >= 0) {
      stored_revision = put_revision;
      return Broken();
    }
    if (copy) return grpc::Status::OK;
    return stored_revision == put_revision - 1 ? grpc::Status::OK : grpc::Status(grpc::StatusCode::ABORTED, "stale");
  }
  grpc::Status GetManifest(grpc::ServerContext*, const v1::GetManifestRequest*,
                           grpc::ServerWriter<v1::ManifestFrame>* writer) override {
    v1::ManifestFrame frame;
    frame.set_revision(stored_revision);
    writer->Write(frame);
    return grpc::Status::OK;
  }
  // As gRPC says it of a connection.
  static grpc::Status Broken() { return {grpc::StatusCode::UNAVAILABLE, "Socket closed"}; }

  std::function<void(v1::RecallResponse*)> recall;  // null: no answer
  absl::Duration answer_after;                      // of each value that is offloaded; 0: no answer
  int offload_code = 0;                             // google.rpc code of those answers
  bool refuses_frames = false;                      // ends the stream at the first one
  std::atomic<int> values{0};                       // that were answered
  std::vector<v1::FetchBlocksResponse> frames, checked_frames;
  int breaks = 0;  // so many calls break after they were obeyed
  int puts = 0;
  int64_t stored_revision = 4, put_revision = 5;
};

class StrangeServiceTest : public testing::Test {
 protected:
  StrangeServiceTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    options_.endpoint = "127.0.0.1:" + std::to_string(port);
    options_.layout = test::SmallLayout();
  }
  ~StrangeServiceTest() override { server_->Shutdown(std::chrono::system_clock::now()); }

  // Of two rows of one block.
  absl::StatusOr<RecalledRows> Recall(RemoteCache& cache, absl::Time deadline) {
    std::promise<absl::StatusOr<RecalledRows>> promise;
    cache.Recall({{{test::NumberedKey(1), 0}, 0, 0b101}}, deadline,
                 [&](absl::StatusOr<RecalledRows> rows) { promise.set_value(std::move(rows)); });
    return promise.get_future().get();
  }
  static std::future<absl::Status> Offload(RemoteCache& cache, int number, std::string value,
                                           OffloadOptions options = {}) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    cache.Offload({test::NumberedKey(number), 0}, std::move(value), options,
                  [promise](absl::Status status) { promise->set_value(std::move(status)); });
    return promise->get_future();
  }
  static v1::FetchBlocksResponse Frame(uint32_t index, uint32_t value_bytes, const std::string& payload) {
    v1::FetchBlocksResponse frame;
    frame.set_index(index);
    frame.set_value_bytes(value_bytes);
    frame.set_payload(payload);
    frame.set_checksum(Checksum32(payload));
    return frame;
  }

  StrangeService service_;
  std::unique_ptr<grpc::Server> server_;
  RemoteCacheOptions options_;
};

TEST_F(StrangeServiceTest, AnswersToARecallThatDoNotFitTheQuestionAreDataLoss) {
  const std::string row(test::SmallLayout().row_bytes(), 'r');
  struct Case {
    const char* what;
    std::function<void(v1::RecallResponse&)> spoil;
  };
  const std::vector<Case> cases = {
      {"masks", [](auto& r) { r.clear_found(); }},
      {"masks", [](auto& r) { r.add_found(1); }},
      {"not asked for", [](auto& r) { r.set_found(0, 0b110); }},
      {"number of rows", [](auto& r) { r.set_found(0, 0b001); }},
      {"number of rows", [](auto& r) { r.add_row_checksums(7); }},
      {"size", [](auto& r) { r.mutable_rows()->pop_back(); }},
      {"size", [](auto& r) { r.clear_rows(); }},
  };
  auto good = [&](v1::RecallResponse* response) {
    response->add_found(0b101);
    response->set_rows(row + row);
    for (int i = 0; i < 2; ++i) response->add_row_checksums(Checksum32(row));
  };
  service_.recall = good;
  auto cache = *RemoteCache::Connect(options_);
  EXPECT_TRUE(Recall(*cache, absl::Now() + absl::Seconds(60)).ok());
  cache.reset();
  for (const Case& c : cases) {
    service_.recall = [&](v1::RecallResponse* response) {
      good(response);
      c.spoil(*response);
    };
    cache = *RemoteCache::Connect(options_);
    const absl::Status status = Recall(*cache, absl::Now() + absl::Seconds(60)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.what));
    cache.reset();
  }
}

TEST_F(StrangeServiceTest, ARecallThatIsNotAnsweredEndsAtItsDeadline) {
  auto cache = *RemoteCache::Connect(options_);
  EXPECT_EQ(Recall(*cache, absl::Now() + absl::Milliseconds(20)).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Recall(*cache, absl::InfinitePast()).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(StrangeServiceTest, AValueThatIsNotAnsweredFailsWhenItsPatienceEnds) {
  options_.offload_patience = absl::Milliseconds(50);
  auto cache = *RemoteCache::Connect(options_);
  const absl::Status status = Offload(*cache, 1, test::NumberedValue(1, 0)).get();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cache->Stats().offload_failures, 1);
}

// The stream ends in the middle of a value, and no other value comes that would need another stream.
TEST_F(StrangeServiceTest, AValueThatWasHalfSentWhenTheStreamEndedIsFreeWhenItHasFailed) {
  service_.refuses_frames = true;
  auto cache = *RemoteCache::Connect(options_);
  auto held = std::make_shared<std::promise<absl::Status>>();
  cache->Offload({test::NumberedKey(1), 0}, std::string(6 << 20, 'x'), {},
                 [held](absl::Status status) { held->set_value(std::move(status)); });
  EXPECT_TRUE(absl::IsInvalidArgument(held->get_future().get()));
  EXPECT_TRUE(test::Eventually([&] { return held.use_count() == 1; }, std::chrono::seconds(20)))
      << "the lane keeps the value and who waits for it";
}

TEST_F(StrangeServiceTest, AFullBufferRefusesWhatIsOfferedAndEveryValueIsAnsweredOnce) {
  options_.write_behind_bytes = size_t{1} << 20;
  std::vector<std::future<absl::Status>> done;
  {
    auto cache = *RemoteCache::Connect(options_);
    for (int i = 0; i < 40; ++i) done.push_back(Offload(*cache, i, std::string(100'000, 'x')));
    EXPECT_GE(cache->Stats().offload_failures, 30);
  }
  int refused = 0;
  for (std::future<absl::Status>& future : done) {
    const absl::Status status = future.get();
    EXPECT_TRUE(absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) << status;
    refused += absl::IsResourceExhausted(status);
  }
  EXPECT_EQ(refused, 30) << "ten fit";
}

TEST_F(StrangeServiceTest, WhatMayNotWaitIsRefusedByAFullBufferAtOnce) {
  options_.write_behind_bytes = size_t{1} << 20;
  options_.write_behind_patience = absl::Hours(1);
  auto cache = *RemoteCache::Connect(options_);
  std::vector<std::future<absl::Status>> done;
  for (int i = 0; i < 10; ++i) done.push_back(Offload(*cache, i, std::string(100'000, 'x')));
  const absl::Status refused = Offload(*cache, 10, std::string(100'000, 'x'), {.may_wait = false}).get();
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(cache->Stats().offload_failures, 1);
}

TEST_F(StrangeServiceTest, AServiceThatIsMerelySlowIsWaitedForOnlySoLongInAll) {
  service_.answer_after = absl::Milliseconds(20);
  options_.write_behind_bytes = size_t{1} << 20;
  options_.write_behind_patience = absl::Milliseconds(100);
  auto cache = *RemoteCache::Connect(options_);
  std::vector<std::future<absl::Status>> done;
  for (int i = 0; i < 50; ++i) done.push_back(Offload(*cache, i, std::string(100'000, 'x')));
  int stored = 0, refused = 0;
  for (std::future<absl::Status>& future : done) {
    const absl::Status status = future.get();
    stored += status.ok();
    refused += absl::IsResourceExhausted(status);
  }
  EXPECT_GE(stored, 10) << "ten fit";
  EXPECT_GT(refused, 0) << "40 that wait for one another would wait for 0.8 s";
  EXPECT_EQ(stored + refused, 50);
  // Half of the buffer is free again: who comes now may wait.
  EXPECT_TRUE(Offload(*cache, 50, std::string(100'000, 'x')).get().ok());
}

TEST_F(StrangeServiceTest, AValueThatAlwaysArrivesDamagedIsGivenUp) {
  service_.answer_after = absl::Nanoseconds(1);
  service_.offload_code = static_cast<int>(absl::StatusCode::kDataLoss);
  auto cache = *RemoteCache::Connect(options_);
  EXPECT_TRUE(absl::IsDataLoss(Offload(*cache, 1, test::NumberedValue(1, 0)).get()));
  EXPECT_EQ(service_.values, 3);
  EXPECT_EQ(cache->Stats().resent_blocks, 2);
  EXPECT_EQ(cache->Stats().offload_failures, 1);
  // Another refusal is final.
  service_.offload_code = static_cast<int>(absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::IsInvalidArgument(Offload(*cache, 1, test::NumberedValue(1, 0)).get()));
  EXPECT_EQ(service_.values, 4);
}

TEST_F(StrangeServiceTest, ACallWhoseConnectionBreaksIsMadeAgain) {
  auto cache = *RemoteCache::Connect(options_);
  const std::vector<BlockId> ids = {{test::NumberedKey(1), 0}};
  const std::string value = test::NumberedValue(1, 0);
  service_.frames = {Frame(0, value.size(), value)};
  service_.breaks = 2;
  const auto fetched = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ((*fetched)[0], value);
  service_.breaks = 1000;
  EXPECT_TRUE(absl::IsUnavailable(cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60)).status()));
  // Who has other services to ask is told at once.
  options_.wait_for_service = false;
  service_.breaks = 1;
  cache = *RemoteCache::Connect(options_);
  EXPECT_TRUE(absl::IsUnavailable(cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60)).status()));
}

// Of TLS over a long way, or of a machine that is busy.
TEST_F(StrangeServiceTest, AConnectionThatTakesLongIsMadeByOneWhoDoesNotWaitForTheService) {
  test::FaultProxy far(options_.endpoint);
  far.Set({.delay = std::chrono::milliseconds(250)});
  options_.endpoint = far.address();
  options_.wait_for_service = false;
  auto cache = *RemoteCache::Connect(options_);
  const std::vector<BlockId> ids = {{test::NumberedKey(1), 0}};
  const std::string value = test::NumberedValue(1, 0);
  service_.frames = {Frame(0, value.size(), value)};
  const auto fetched = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ((*fetched)[0], value);
}

TEST_F(StrangeServiceTest, AManifestThatWasStoredBeforeTheConnectionBrokeIsStored) {
  auto cache = *RemoteCache::Connect(options_);
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = "s";
  manifest.revision = 5;
  service_.breaks = 1;
  EXPECT_TRUE(cache->Put(manifest, absl::Now() + absl::Seconds(60)).ok());
  EXPECT_EQ(service_.puts, 3) << "stored, refused as stale, stored as a copy";
  // Another worker's turn is there: that is no success.
  service_.stored_revision = 6;
  service_.put_revision = 6;
  service_.breaks = 1;
  manifest.revision = 5;
  EXPECT_TRUE(absl::IsAborted(cache->Put(manifest, absl::Now() + absl::Seconds(60))));
}

TEST_F(StrangeServiceTest, BlocksThatAreNotWhatWasAskedForAreDataLoss) {
  auto cache = *RemoteCache::Connect(options_);
  auto fetch = [&](std::vector<v1::FetchBlocksResponse> frames) {
    service_.frames = std::move(frames);
    const std::vector<BlockId> ids = {{test::NumberedKey(1), 0}};
    return cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  };
  const std::string value = test::NumberedValue(1, 0);
  const auto good = fetch({Frame(0, value.size(), value.substr(0, 1000)), Frame(0, 0, value.substr(1000))});
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ((*good)[0], value);
  EXPECT_FALSE((*fetch({}))[0].has_value()) << "nothing came: a miss";
  for (const std::vector<v1::FetchBlocksResponse>& frames : {std::vector<v1::FetchBlocksResponse>{Frame(5, 4, "abcd")},
                                                             {Frame(0, 9, "abcd")},
                                                             {Frame(0, 2, "abcd")},
                                                             {Frame(0, 4, "abcd"), Frame(0, 0, "more")},
                                                             {Frame(0, 1u << 31, "abcd")}}) {
    EXPECT_EQ(fetch(frames).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(StrangeServiceTest, BlocksThatComeDamagedAreFetchedAgainWithChecks) {
  auto cache = *RemoteCache::Connect(options_);
  const std::string value = test::NumberedValue(1, 0), other = test::NumberedValue(2, 0);
  std::string damaged = value;
  damaged[1000] ^= 1;
  const std::vector<BlockId> ids = {{test::NumberedKey(2), 0}, {test::NumberedKey(1), 0}};
  service_.frames = {Frame(0, other.size(), other), Frame(1, value.size(), damaged)};
  service_.checked_frames = {Frame(0, value.size(), value)};
  auto fetched = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ((*fetched)[0], other);
  EXPECT_EQ((*fetched)[1], value);
  EXPECT_EQ(cache->Stats().refetched_blocks, 1);
  // What the service has only so is a miss.
  service_.checked_frames = {Frame(0, value.size(), damaged)};
  fetched = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(fetched.ok()) << fetched.status();
  EXPECT_EQ((*fetched)[0], other);
  EXPECT_FALSE((*fetched)[1].has_value());
  // Checks are checked.
  service_.checked_frames[0].set_checksum(Checksum32(value));
  EXPECT_TRUE(absl::IsDataLoss(cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60)).status()));
}

}  // namespace
}  // namespace tidepool
