#include "bench/cache/raw_client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/sync_stream.h>

#include <thread>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace tidepool::bench {
namespace {

std::shared_ptr<grpc::Channel> OpenRawChannel(const std::string& address, int number) {
  grpc::ChannelArguments arguments;
  SetRawChannelArguments(&arguments, number);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

class SyncStream final : public RawStream {
 public:
  SyncStream(const std::string& address, RawMethod method, int number)
      : channel_(OpenRawChannel(address, number)),
        stream_(grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
            channel_.get(),
            grpc::internal::RpcMethod(kRawMethods[static_cast<int>(method)], grpc::internal::RpcMethod::BIDI_STREAMING),
            &context_)) {}
  ~SyncStream() override {
    context_.TryCancel();
    stream_->Finish();
  }

  std::vector<grpc::ByteBuffer> Exchange(const std::vector<grpc::ByteBuffer>& messages, size_t answers,
                                         const Take& take) override {
    std::thread writer;
    auto write = [&] {
      for (const grpc::ByteBuffer& message : messages) TIDEPOOL_CHECK(stream_->Write(message));
    };
    if (messages.size() > 1) {
      writer = std::thread(write);
    } else {
      write();
    }
    std::vector<grpc::ByteBuffer> read(answers);
    for (size_t i = 0; i < answers; ++i) {
      TIDEPOOL_CHECK(stream_->Read(&read[i]));
      if (take) take(i, read[i]);
    }
    if (writer.joinable()) writer.join();
    return read;
  }

 private:
  grpc::ClientContext context_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream_;
};

class CallbackStream final : public RawStream, grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  CallbackStream(const std::string& address, RawMethod method, int number)
      : channel_(OpenRawChannel(address, number)), stub_(channel_) {
    stub_.PrepareBidiStreamingCall(&context_, kRawMethods[kRawMethodKinds + static_cast<int>(method)], {}, this);
    AddHold();
    StartCall();
  }
  ~CallbackStream() override {
    context_.TryCancel();
    RemoveHold();
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
  }

  std::vector<grpc::ByteBuffer> Exchange(const std::vector<grpc::ByteBuffer>& messages, size_t answers,
                                         const Take& take) override {
    {
      MutexLock lock(&mutex_);
      messages_ = &messages;
      take_ = &take;
      written_ = read_count_ = 0;
      taken_ = 0;
      read_.assign(answers, grpc::ByteBuffer());
    }
    if (answers > 0) StartRead(&read_[0]);
    if (!messages.empty()) StartWrite(&messages[0]);
    MutexLock lock(&mutex_);
    while (written_ < messages.size() || read_count_ < answers) changed_.Wait(&mutex_);
    return std::move(read_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    size_t next = 0;
    if (*take_) (*take_)(taken_, read_[taken_]);
    ++taken_;
    {
      MutexLock lock(&mutex_);
      next = ++read_count_;
      if (next >= read_.size()) return changed_.SignalAll();
    }
    StartRead(&read_[next]);
  }
  void OnWriteDone(bool ok) override {
    if (!ok) return;
    size_t next = 0;
    {
      MutexLock lock(&mutex_);
      next = ++written_;
      if (next >= messages_->size()) return changed_.SignalAll();
    }
    StartWrite(&(*messages_)[next]);
  }
  void OnDone(const grpc::Status&) override {
    MutexLock lock(&mutex_);
    done_ = true;
    changed_.SignalAll();
  }

 private:
  grpc::ClientContext context_;
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub_;
  Mutex mutex_;
  CondVar changed_;
  const std::vector<grpc::ByteBuffer>* messages_ = nullptr;  // of the exchange under way
  const Take* take_ = nullptr;
  size_t taken_ = 0;                    // answers, by one read after the other
  std::vector<grpc::ByteBuffer> read_;  // sized before its reads start
  size_t written_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t read_count_ ABSL_GUARDED_BY(mutex_) = 0;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<RawStream> RawStream::Open(const std::string& address, RawMethod method, bool callback, int number) {
  if (callback) return std::make_unique<CallbackStream>(address, method, number);
  return std::make_unique<SyncStream>(address, method, number);
}

}  // namespace tidepool::bench
