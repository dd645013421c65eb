// Values as raw messages over the streams of raw_streams.h.
#include <grpcpp/grpcpp.h>

#include <thread>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"
#include "bench/cache/raw_client.h"
#include "bench/cache/server_process.h"
#include "bench/cache/side.h"

namespace tidepool::bench {
namespace {

class RawSide : public Side {
 public:
  RawSide(bool callback, bool unix_socket, RawMethod put = RawMethod::kSink)
      : callback_(callback),
        server_({"raw_server", "{listen}"}, unix_socket),
        sink_(RawStream::Open(server_.address(), put, callback, 1)),
        source_(RawStream::Open(server_.address(), RawMethod::kSource, callback, 2)) {}

  std::string name() const override { return callback_ ? "raw gRPC, callback" : "raw gRPC, sync"; }
  int pid() const override { return server_.pid(); }

  void Put(absl::Span<const Item> items) override {
    std::vector<grpc::ByteBuffer> messages;
    for (const Item& item : items) messages.push_back(Borrowed(item.value->data(), item.value->size()));
    const std::vector<grpc::ByteBuffer> acks = sink_->Exchange(messages, items.size());
    TIDEPOOL_CHECK(acks.size() == items.size());
  }

  ReadValues Get(absl::Span<const Item> items) override {
    Ask(items, nullptr);
    slices_.assign(answers_.size(), {});
    ReadValues read(answers_.size());
    for (size_t i = 0; i < answers_.size(); ++i) {
      TIDEPOOL_CHECK(answers_[i].Dump(&slices_[i]).ok());
      for (const grpc::Slice& slice : slices_[i]) {
        read[i].emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
      }
    }
    return read;
  }

 protected:
  void Ask(absl::Span<const Item> items, const RawStream::Take& take) {
    // Always the same bytes, whatever was put.
    const SourceRequest request = {.kv_heads = static_cast<int32_t>(items[0].value->size() / (32 * 1024)),
                                   .count = static_cast<int32_t>(items.size())};
    answers_ =
        source_->Exchange({Borrowed(reinterpret_cast<const char*>(&request), sizeof request)}, items.size(), take);
  }

 private:
  const bool callback_;
  ServerProcess server_;
  const std::unique_ptr<RawStream> sink_, source_;
  std::vector<grpc::ByteBuffer> answers_;
  std::vector<std::vector<grpc::Slice>> slices_;
};

// What comes in, at either end, becomes a string in memory and is verified.
class KeptSide final : public RawSide {
 public:
  explicit KeptSide(bool unix_socket) : RawSide(/*callback=*/true, unix_socket, RawMethod::kKeep) {}
  std::string name() const override { return "kept"; }
  ReadValues Get(absl::Span<const Item> items) override {
    values_.assign(items.size(), "");
    Ask(items, [this](size_t index, const grpc::ByteBuffer& answer) { values_[index] = Whole(answer); });
    ReadValues read;
    for (const std::string& value : values_) read.push_back({value});
    return read;
  }

 private:
  std::vector<std::string> values_;
};

}  // namespace

std::unique_ptr<Side> MakeKeptSide(bool unix_socket) { return std::make_unique<KeptSide>(unix_socket); }

std::unique_ptr<Side> MakeRawSide(bool callback, bool unix_socket) {
  return std::make_unique<RawSide>(callback, unix_socket);
}

}  // namespace tidepool::bench
