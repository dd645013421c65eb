// The cache service against clients that get the protocol wrong, or vanish.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/checksum.h"
#include "base/limits.h"
#include "cacheservice/rpc/cache_server.h"
#include "cacheservice/wire/messages.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {
namespace {

using testing::HasSubstr;

class CacheStoreServiceTest : public testing::Test {
 protected:
  explicit CacheStoreServiceTest(int64_t staging_bytes = int64_t{1} << 30) {
    CacheServerOptions options;
    options.listen = "127.0.0.1:0";
    options.cache.data_dir = dir_.path();
    options.staging_bytes = staging_bytes;
    server_ = *CacheServer::Start(options);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    store_ = v1::CacheStore::NewStub(channel_);
    admin_ = v1::CacheAdmin::NewStub(channel_);
  }

  static v1::StreamHello Hello() { return HelloOf("default", test::SmallLayout()); }
  static v1::BlockFrame Frame(uint64_t sequence) {
    const std::string value = test::NumberedValue(1, 0);
    v1::BlockFrame frame;
    frame.set_sequence(sequence);
    *frame.mutable_block() = RefOf({test::NumberedKey(1), 0});
    frame.set_value_bytes(static_cast<uint32_t>(value.size()));
    frame.set_payload(value);
    frame.set_checksum(Checksum32(value));
    return frame;
  }
  // Sends the messages and returns how the stream ends.
  grpc::Status Offload(const std::vector<v1::OffloadRequest>& requests) {
    grpc::ClientContext context;
    auto stream = store_->Offload(&context);
    for (const v1::OffloadRequest& request : requests) {
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    v1::OffloadResponse response;
    while (stream->Read(&response)) responses_.push_back(response);
    return stream->Finish();
  }
  grpc::Status Recall(const std::vector<v1::RecallRequest>& requests) {
    grpc::ClientContext context;
    auto stream = store_->Recall(&context);
    for (const v1::RecallRequest& request : requests) {
      if (!stream->Write(request)) break;
    }
    stream->WritesDone();
    v1::RecallResponse response;
    while (stream->Read(&response)) recalled_.push_back(response);
    return stream->Finish();
  }
  v1::GetStatsResponse Stats() {
    grpc::ClientContext context;
    v1::GetStatsResponse stats;
    EXPECT_TRUE(admin_->GetStats(&context, {}, &stats).ok());
    return stats;
  }

  // How a call ends whose only message is `bytes`, whatever they are.
  grpc::Status SendRaw(const std::string& method, const std::string& bytes) {
    grpc::CompletionQueue queue;
    grpc::ClientContext context;
    grpc::GenericStub stub(channel_);
    auto call = stub.PrepareCall(&context, method, &queue);
    const grpc::Slice slice(bytes);
    auto wait = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    call->StartCall(nullptr);
    grpc::Status status;
    if (wait()) {
      call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
      if (wait()) {
        call->WritesDone(nullptr);
        wait();
      }
      grpc::ByteBuffer answer;
      do call->Read(&answer, nullptr);
      while (wait());
    }
    call->Finish(&status, nullptr);
    wait();
    return status;
  }
  // A manifest of `bytes` bytes of nothing.
  grpc::Status PutManifest(size_t bytes) {
    grpc::ClientContext context;
    v1::PutManifestResponse response;
    auto writer = store_->PutManifest(&context, &response);
    v1::ManifestFrame frame;
    frame.set_manifest_bytes(bytes);
    for (size_t sent = 0; sent < bytes; sent += frame.payload().size()) {
      frame.set_payload(std::string(std::min(kMaxFrameBytes, bytes - sent), 'x'));
      frame.set_checksum(Checksum32(frame.payload()));
      if (!writer->Write(frame)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }
  // Waits until no stream is open: the end of a call is seen by its client first.
  void WaitForClosedStreams() {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while ((Stats().open_streams() != 0 || Stats().staging_bytes() != 0) && std::chrono::steady_clock::now() < until) {
      std::this_thread::yield();
    }
    EXPECT_EQ(Stats().open_streams(), 0u);
    EXPECT_EQ(Stats().staging_bytes(), 0u);
  }

  test::TempDir dir_;
  std::unique_ptr<CacheServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::CacheStore::Stub> store_;
  std::unique_ptr<v1::CacheAdmin::Stub> admin_;
  std::vector<v1::OffloadResponse> responses_;
  std::vector<v1::RecallResponse> recalled_;
};

TEST_F(CacheStoreServiceTest, WrongOffloadStreamsEndWithTheFieldsName) {
  struct Case {
    const char* field;
    std::function<void(v1::StreamHello&, v1::BlockFrame&)> spoil;
  };
  const std::vector<Case> cases = {
      {"hello.protocol", [](auto& h, auto&) { h.set_protocol(2); }},
      {"hello.tenant", [](auto& h, auto&) { h.clear_tenant(); }},
      {"hello.tenant", [](auto& h, auto&) { h.set_tenant(std::string(200, 'x')); }},
      {"model_fingerprint", [](auto& h, auto&) { h.mutable_shape()->clear_model_fingerprint(); }},
      {"layers", [](auto& h, auto&) { h.mutable_shape()->set_layers(0); }},
      {"kv_heads", [](auto& h, auto&) { h.mutable_shape()->set_kv_heads(-3); }},
      {"head_dim", [](auto& h, auto&) { h.mutable_shape()->set_head_dim(1 << 20); }},
      {"type", [](auto& h, auto&) { h.mutable_shape()->clear_type(); }},
      {"frame.sequence", [](auto&, auto& f) { f.set_sequence(7); }},
      {"block.key", [](auto&, auto& f) { f.mutable_block()->set_key("short"); }},
      {"block.layer", [](auto&, auto& f) { f.mutable_block()->set_layer(-1); }},
      {"frame.value_bytes", [](auto&, auto& f) { f.set_value_bytes(0); }},
      {"frame.value_bytes", [](auto&, auto& f) { f.set_value_bytes(1u << 31); }},
      {"frame.payload", [](auto&, auto& f) { f.set_value_bytes(3); }},
      {"frame.payload", [](auto&, auto& f) { f.clear_payload(), f.set_checksum(Checksum32("")); }},
      {"frame.payload",
       [](auto&, auto& f) {
         f.set_payload(std::string(kMaxFrameBytes + 1, 'x'));
         f.set_checksum(Checksum32(f.payload()));
       }},
      {"frame.parent_key", [](auto&, auto& f) { f.set_parent_key("short"); }},
      {"frame.checksum", [](auto&, auto& f) { f.set_checksum(f.checksum() ^ 1); }},
      {"frame.checksum", [](auto&, auto& f) { f.mutable_payload()->at(100) ^= 1; }},
  };
  for (const Case& c : cases) {
    v1::OffloadRequest hello, frame;
    *hello.mutable_hello() = Hello();
    *frame.mutable_frame() = Frame(1);
    c.spoil(*hello.mutable_hello(), *frame.mutable_frame());
    const grpc::Status status = Offload({hello, frame});
    EXPECT_FALSE(status.ok()) << c.field;
    EXPECT_THAT(status.error_message(), HasSubstr(c.field));
  }
  v1::OffloadRequest frame;
  *frame.mutable_frame() = Frame(1);
  EXPECT_THAT(Offload({frame}).error_message(), HasSubstr("hello"));
  v1::OffloadRequest hello;
  *hello.mutable_hello() = Hello();
  EXPECT_THAT(Offload({hello, hello}).error_message(), HasSubstr("frame"));
  EXPECT_EQ(Stats().memory().objects(), 0u);
  EXPECT_TRUE(Offload({hello, frame}).ok()) << "the service lives on";
  EXPECT_EQ(Stats().memory().objects(), 1u);
  EXPECT_TRUE(test::Eventually([this] { return Stats().staging_bytes() == 0; })) << "freed once streams have ended";
}

TEST_F(CacheStoreServiceTest, ADamagedValueIsRefusedAndTheStreamGoesOn) {
  v1::OffloadRequest hello, bad, good;
  *hello.mutable_hello() = Hello();
  *bad.mutable_frame() = Frame(1);
  bad.mutable_frame()->mutable_payload()->back() ^= 1;  // a row, under a correct frame checksum
  bad.mutable_frame()->set_checksum(Checksum32(bad.frame().payload()));
  *good.mutable_frame() = Frame(2);
  responses_.clear();
  EXPECT_TRUE(Offload({hello, bad, good}).ok());
  ASSERT_EQ(responses_.size(), 3u);
  EXPECT_NE(responses_[1].result().code() + responses_[2].result().code(), 0);
  EXPECT_EQ(Stats().memory().objects(), 1u);
}

TEST_F(CacheStoreServiceTest, FramesWithoutChecksumsAreVerifiedByTheValuesOwn) {
  v1::OffloadRequest hello, bad, good;
  *hello.mutable_hello() = Hello();
  *bad.mutable_frame() = Frame(1);
  bad.mutable_frame()->set_unchecked(true);
  bad.mutable_frame()->clear_checksum();
  good = bad;
  good.mutable_frame()->set_sequence(2);
  bad.mutable_frame()->mutable_payload()->at(100) ^= 1;
  responses_.clear();
  EXPECT_TRUE(Offload({hello, bad, good}).ok());
  ASSERT_EQ(responses_.size(), 3u);
  EXPECT_TRUE(responses_[0].accepted().takes_unchecked());
  for (int i = 1; i < 3; ++i) {
    const v1::OffloadResult& result = responses_[i].result();
    EXPECT_EQ(result.code(), result.sequence() == 1 ? static_cast<int>(absl::StatusCode::kDataLoss) : 0);
  }
  EXPECT_EQ(Stats().memory().objects(), 1u);
  bad.mutable_frame()->set_payload(std::string(kMaxFrameBytes + 1, 'x'));
  bad.mutable_frame()->set_value_bytes(kMaxFrameBytes + 1);
  EXPECT_THAT(Offload({hello, bad}).error_message(), HasSubstr("frame.payload"));
}

TEST_F(CacheStoreServiceTest, BlocksAreFetchedInOrderWithChecksumsUnlessTheyAreNotWanted) {
  v1::OffloadRequest hello, frame;
  *hello.mutable_hello() = Hello();
  *frame.mutable_frame() = Frame(1);
  ASSERT_TRUE(Offload({hello, frame}).ok());
  constexpr int kAsked = 1000;  // more than is read before something is sent
  for (const bool unchecked : {false, true}) {
    grpc::ClientContext context;
    v1::FetchBlocksRequest request;
    request.set_unchecked(unchecked);
    for (int i = 0; i < kAsked; ++i) *request.add_blocks() = RefOf({test::NumberedKey(1), i % 2});
    auto reader = store_->FetchBlocks(&context, request);
    v1::FetchBlocksResponse response;
    for (uint32_t i = 0; i < kAsked; ++i) {
      ASSERT_TRUE(reader->Read(&response));
      EXPECT_EQ(response.index(), i);
      EXPECT_EQ(response.missing(), i % 2 == 1);
      if (i % 2 == 1) continue;
      EXPECT_EQ(response.payload(), frame.frame().payload());
      EXPECT_EQ(response.checksum(), unchecked ? 0 : frame.frame().checksum());
    }
    EXPECT_FALSE(reader->Read(&response));
    EXPECT_TRUE(reader->Finish().ok());
  }
}

TEST_F(CacheStoreServiceTest, WrongRecallsEndWithTheFieldsName) {
  v1::RecallRequest hello, rows;
  *hello.mutable_hello() = Hello();
  v1::RowSelectionRef& selection = *rows.mutable_rows()->add_selections();
  *selection.mutable_block() = RefOf({test::NumberedKey(1), 0});
  selection.set_row_mask(1);
  EXPECT_THAT(Recall({rows}).error_message(), HasSubstr("hello"));
  EXPECT_THAT(Recall({hello, hello}).error_message(), HasSubstr("rows"));
  v1::RecallRequest bad = rows;
  bad.mutable_rows()->mutable_selections(0)->set_kv_head(-1);
  EXPECT_THAT(Recall({hello, bad}).error_message(), HasSubstr("kv_head"));
  bad = rows;
  bad.mutable_rows()->mutable_selections(0)->mutable_block()->set_key("");
  EXPECT_THAT(Recall({hello, bad}).error_message(), HasSubstr("block.key"));
  bad = rows;
  for (int i = 0; i <= kMaxWireSelections; ++i) *bad.mutable_rows()->add_selections() = rows.rows().selections(0);
  EXPECT_THAT(Recall({hello, bad}).error_message(), HasSubstr("selections"));
  EXPECT_TRUE(Recall({hello, rows}).ok());
  ASSERT_EQ(recalled_.size(), 1u);
  EXPECT_EQ(recalled_[0].found(0), 0u);
}

TEST_F(CacheStoreServiceTest, WrongUnaryCallsAreRefusedByField) {
  {
    grpc::ClientContext context;
    v1::LookupRequest request;
    request.add_keys("1234");
    request.set_layers(3);
    v1::LookupResponse response;
    EXPECT_THAT(store_->Lookup(&context, request, &response).error_message(), HasSubstr("keys[0]"));
  }
  {
    grpc::ClientContext context;
    v1::LookupRequest request;
    v1::LookupResponse response;
    EXPECT_THAT(store_->Lookup(&context, request, &response).error_message(), HasSubstr("layers"));
  }
  {
    grpc::ClientContext context;
    v1::FetchBlocksRequest request;
    request.add_blocks()->set_key("x");
    auto reader = store_->FetchBlocks(&context, request);
    EXPECT_THAT(reader->Finish().error_message(), HasSubstr("block.key"));
  }
  for (const auto& [bytes, field] : {std::pair<uint64_t, const char*>{0, "manifest_bytes"},
                                     {uint64_t{1} << 40, "manifest_bytes"},
                                     {10, "manifest"}}) {
    grpc::ClientContext context;
    v1::PutManifestResponse response;
    auto writer = store_->PutManifest(&context, &response);
    v1::ManifestFrame frame;
    frame.set_manifest_bytes(bytes);
    frame.set_payload("12345");
    frame.set_checksum(Checksum32("12345"));
    writer->Write(frame);
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.error_message(), HasSubstr(field));
  }
  {
    grpc::ClientContext context;
    v1::ListSessionsRequest request;
    request.set_page_size(5000);
    v1::ListSessionsResponse response;
    EXPECT_THAT(admin_->ListSessions(&context, request, &response).error_message(), HasSubstr("page_size"));
  }
  {
    grpc::ClientContext context;
    v1::DescribeSessionRequest request;
    request.set_session_id("nobody");
    v1::SessionDescription response;
    EXPECT_EQ(admin_->DescribeSession(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  {
    grpc::ClientContext context;
    v1::DropSessionRequest request;
    request.set_session_id("nobody");
    v1::DropSessionResponse response;
    EXPECT_EQ(admin_->DropSession(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  }
}

TEST_F(CacheStoreServiceTest, AClientThatVanishesInTheMiddleOfAValueLeavesNothingBehind) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    auto stream = store_->Offload(&context);
    v1::OffloadRequest request;
    *request.mutable_hello() = Hello();
    stream->Write(request);
    *request.mutable_frame() = Frame(1);
    request.mutable_frame()->mutable_payload()->resize(1000);
    request.mutable_frame()->set_checksum(Checksum32(request.frame().payload()));
    stream->Write(request);
    v1::OffloadResponse response;
    stream->Read(&response);  // the service has seen the hello
    context.TryCancel();
    stream->Finish();
  }
  WaitForClosedStreams();
}

TEST_F(CacheStoreServiceTest, ClientsThatVanishWhileTheirAnswersAreMadeLeaveNothingBehind) {
  v1::OffloadRequest hello, frame;
  *hello.mutable_hello() = Hello();
  *frame.mutable_frame() = Frame(1);
  ASSERT_TRUE(Offload({hello, frame}).ok());
  v1::RecallRequest recall_hello, rows;
  *recall_hello.mutable_hello() = Hello();
  for (int i = 0; i < 200; ++i) {
    v1::RowSelectionRef& selection = *rows.mutable_rows()->add_selections();
    *selection.mutable_block() = RefOf({test::NumberedKey(1), 0});
    selection.set_row_mask(~uint64_t{0});
  }
  for (int i = 0; i < 100; ++i) {
    grpc::ClientContext offload_context, recall_context;
    auto offload = store_->Offload(&offload_context);
    offload->Write(hello);
    frame.mutable_frame()->set_durable(i % 2 == 0);
    offload->Write(frame);
    auto recall = store_->Recall(&recall_context);
    recall->Write(recall_hello);
    for (int k = 0; k < 1 + i % 4; ++k) recall->Write(rows);
    offload_context.TryCancel();
    recall_context.TryCancel();
    offload->Finish();
    recall->Finish();
  }
  WaitForClosedStreams();
  EXPECT_EQ(Stats().memory().objects(), 1u);
}

TEST_F(CacheStoreServiceTest, BytesThatAreNoMessageEndTheCallAndNothingElse) {
  const std::vector<std::string> spoiled = {
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",  // a tag without end
      std::string("\x0a\x7f", 2) + "short",            // a field that goes past the message
      std::string("\x07\x00", 2),                      // a wire type that does not exist
      std::string(1000, '\x0b'),                       // groups in groups
  };
  const std::string store = "/tidepool.v1.CacheStore/", admin = "/tidepool.v1.CacheAdmin/";
  for (const std::string& method :
       {store + "Lookup", store + "Offload", store + "Recall", store + "FetchBlocks", store + "PutManifest",
        store + "GetManifest", store + "DeleteSession", admin + "GetStats", admin + "ListSessions",
        admin + "DescribeSession", admin + "DropSession"}) {
    for (size_t i = 0; i < spoiled.size(); ++i)
      EXPECT_FALSE(SendRaw(method, spoiled[i]).ok()) << method << ", case " << i;
  }
  for (const char* method : {"Offload", "Recall"}) {
    EXPECT_EQ(SendRaw(store + method, spoiled[0]).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method;
  }
  EXPECT_EQ(SendRaw(store + "Offload", std::string(kMaxMessageBytes + 1, 'x')).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(SendRaw(store + "NoSuchMethod", "").error_code(), grpc::StatusCode::UNIMPLEMENTED);
  WaitForClosedStreams();
}

TEST_F(CacheStoreServiceTest, AWorkerThatAsksFirstAndReadsLaterGetsEveryAnswer) {
  v1::OffloadRequest hello, frame;
  *hello.mutable_hello() = Hello();
  *frame.mutable_frame() = Frame(1);
  ASSERT_TRUE(Offload({hello, frame}).ok());
  // 120 answers of 1 MB: more than a stream may have ready, so the service stops reading until they are taken.
  constexpr uint64_t kRequests = 120;
  constexpr int kSelections = 256;
  grpc::ClientContext context;
  auto stream = store_->Recall(&context);
  std::thread writer([&stream] {
    v1::RecallRequest request;
    *request.mutable_hello() = Hello();
    stream->Write(request);
    v1::RowsRequest& rows = *request.mutable_rows();
    for (int i = 0; i < kSelections; ++i) {
      v1::RowSelectionRef& selection = *rows.add_selections();
      *selection.mutable_block() = RefOf({test::NumberedKey(1), 0});
      selection.set_row_mask(~uint64_t{0});
    }
    for (uint64_t id = 1; id <= kRequests; ++id) {
      rows.set_id(id);
      stream->Write(request);
    }
    stream->WritesDone();
  });
  std::map<uint64_t, int> rows_of;
  v1::RecallResponse response;
  while (stream->Read(&response)) {
    EXPECT_LE(response.rows().size(), kMaxFrameBytes);
    rows_of[response.id()] += response.row_checksums_size();
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(rows_of.size(), kRequests);
  for (const auto& [id, rows] : rows_of) EXPECT_EQ(rows, kSelections * kBlockTokens) << id;
}

TEST_F(CacheStoreServiceTest, ARecallOfMoreRowsThanARequestMayAskForIsRefused) {
  v1::RecallRequest hello, rows;
  *hello.mutable_hello() = Hello();
  const int too_many =
      static_cast<int>(kMaxWireRecallBytes / static_cast<int64_t>(test::SmallLayout().row_bytes() * kBlockTokens) + 1);
  for (int i = 0; i < too_many; ++i) {
    v1::RowSelectionRef& selection = *rows.mutable_rows()->add_selections();
    *selection.mutable_block() = RefOf({test::NumberedKey(1), 0});
    selection.set_row_mask(~uint64_t{0});
  }
  const grpc::Status status = Recall({hello, rows});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("rows.selections"));
}

TEST_F(CacheStoreServiceTest, ModelsWithoutEndAreRefused) {
  v1::OffloadRequest hello;
  *hello.mutable_hello() = Hello();
  grpc::Status status;
  int accepted = 0;
  for (; accepted < 5000; ++accepted) {
    hello.mutable_hello()->mutable_shape()->set_model_fingerprint("model" + std::to_string(accepted));
    if (status = Offload({hello}); !status.ok()) break;
  }
  EXPECT_EQ(accepted, 1024);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("model_fingerprint"));
  hello.mutable_hello()->mutable_shape()->set_model_fingerprint("model7");
  EXPECT_TRUE(Offload({hello}).ok()) << "known ones go on";
}

class LittleStagingTest : public CacheStoreServiceTest {
 protected:
  LittleStagingTest() : CacheStoreServiceTest(int64_t{1} << 20) {}
};

TEST_F(LittleStagingTest, StreamsThatTogetherHoldTooMuchAreTurnedAwayAndNothingStays) {
  // Not a manifest, but one that fits is read to its end.
  EXPECT_EQ(PutManifest(size_t{1} << 19).error_code(), grpc::StatusCode::DATA_LOSS);
  WaitForClosedStreams();
  EXPECT_EQ(PutManifest(size_t{3} << 20).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  WaitForClosedStreams();
  v1::OffloadRequest hello, frame;
  *hello.mutable_hello() = Hello();
  *frame.mutable_frame() = Frame(1);
  EXPECT_TRUE(Offload({hello, frame}).ok()) << "there is room again";
}

TEST(CacheServerTest, BadOptionsAreRefusedByName) {
  test::TempDir dir;
  auto refused = [&](const char* field, auto spoil) {
    CacheServerOptions options;
    options.listen = "127.0.0.1:0";
    options.cache.data_dir = dir.path();
    spoil(options);
    const auto server = CacheServer::Start(options);
    ASSERT_FALSE(server.ok()) << field;
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(field));
  };
  refused("listen", [](auto& o) { o.listen = "0.0.0.0:0"; });
  refused("listen", [](auto& o) { o.listen = "127.0.0.1:99999"; });
  refused("listen", [](auto& o) { o.listen = "127.0.0.1"; });
  refused("listen", [](auto& o) { o.listen = "unix:"; });
  refused("threads", [](auto& o) { o.threads = 0; });
  refused("staging_bytes", [](auto& o) { o.staging_bytes = 5; });
  refused("data_dir", [](auto& o) { o.cache.data_dir.clear(); });
  refused("data_dir", [](auto& o) { o.cache.data_dir = "/proc/nowhere"; });
  refused("memory_bytes", [](auto& o) { o.cache.memory_bytes = 5; });
  refused("disk_bytes", [](auto& o) { o.cache.disk_bytes = 5; });
  CacheServerOptions options;
  options.listen = "127.0.0.1:0";
  options.cache.data_dir = dir.path();
  auto server = *CacheServer::Start(options);
  refused("data_dir", [](auto&) {});  // in use
}

}  // namespace
}  // namespace tidepool
