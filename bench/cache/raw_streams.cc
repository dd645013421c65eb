#include "bench/cache/raw_streams.h"

#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/support/method_handler.h>

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "bench/cache/items.h"
#include "policies/kv/block_codec.h"

namespace tidepool::bench {
namespace {

using Stream = grpc::ServerReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;
using Reactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

constexpr size_t kMostAnswerBytes = size_t{4} << 20;
constexpr size_t kKeptBytes = size_t{96} << 20;
const char kZeros[kMostAnswerBytes] = {};

// Values as the memory of a cache has them: those of kMemoryTurns turns, one turn after the other, which are more than
// the processor's caches hold.
const std::vector<std::string>& ValuesOfNextTurn(int kv_heads, int count) {
  static Mutex mutex;
  static std::map<std::pair<int, size_t>, std::vector<std::string>> held;  // by kv heads and turn
  static size_t turns = 0;
  MutexLock lock(&mutex);
  std::vector<std::string>& values = held[{kv_heads, turns++ % kMemoryTurns}];
  if (values.empty()) {
    for (const Item& item : MakeItems(kv_heads, count, 0)) values.push_back(*item.value);
  }
  return values;
}

// As many as the memory of a cache holds that is measured beside it.
void Keep(std::string value) {
  static Mutex mutex;
  static std::deque<std::string> kept;
  static size_t kept_bytes = 0;
  MutexLock lock(&mutex);
  kept_bytes += value.size();
  kept.push_back(std::move(value));
  while (kept_bytes > kKeptBytes) {
    kept_bytes -= kept.front().size();
    kept.pop_front();
  }
}

// The answers to one message.
std::vector<grpc::ByteBuffer> AnswersTo(RawMethod method, const grpc::ByteBuffer& message) {
  std::vector<grpc::ByteBuffer> answers;
  switch (method) {
    case RawMethod::kKeep: Keep(Whole(message)); [[fallthrough]];
    case RawMethod::kSink: answers.push_back(Borrowed(kZeros, kAckBytes)); break;
    case RawMethod::kEcho: {
      uint32_t size = 0;
      if (CopyFront(message, &size, sizeof size) && size <= kMostAnswerBytes) answers.push_back(Borrowed(kZeros, size));
      break;
    }
    case RawMethod::kSource: {
      SourceRequest request;
      if (!CopyFront(message, &request, sizeof request)) break;
      for (const std::string& value : ValuesOfNextTurn(request.kv_heads, request.count)) {
        answers.push_back(Borrowed(value.data(), value.size()));
      }
    }
  }
  return answers;
}

grpc::Status Serve(RawMethod method, Stream* stream) {
  grpc::ByteBuffer message;
  while (stream->Read(&message)) {
    for (const grpc::ByteBuffer& answer : AnswersTo(method, message)) {
      if (!stream->Write(answer)) return grpc::Status::CANCELLED;
    }
  }
  return grpc::Status::OK;
}

class CallbackStream final : public Reactor {
 public:
  explicit CallbackStream(RawMethod method) : method_(method) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    std::vector<grpc::ByteBuffer> answers;
    if (ok) answers = AnswersTo(method_, message_);
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      for (grpc::ByteBuffer& answer : answers) queue_.push_back(std::move(answer));
      ended_ = !ok;
      WriteNext();
      finish = TakeFinish();
    }
    if (ok) StartRead(&message_);
    if (finish) Finish(grpc::Status::OK);
  }
  void OnWriteDone(bool ok) override {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      queue_.pop_front();
      if (!ok) queue_.clear();
      WriteNext();
      finish = TakeFinish();
    }
    if (finish) Finish(grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    StartWrite(&queue_.front());
  }
  // True once.
  bool TakeFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!ended_ || writing_ || !queue_.empty() || finished_) return false;
    return finished_ = true;
  }

  const RawMethod method_;
  grpc::ByteBuffer message_;
  Mutex mutex_;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class RawService final : public grpc::Service {
 public:
  RawService() {
    for (int i = 0; i < kRawMethodKinds; ++i) {
      const auto method = static_cast<RawMethod>(i);
      AddMethod(new grpc::internal::RpcServiceMethod(
          kRawMethods[i], grpc::internal::RpcMethod::BIDI_STREAMING,
          new grpc::internal::BidiStreamingHandler<RawService, grpc::ByteBuffer, grpc::ByteBuffer>(
              [method](RawService*, grpc::ServerContext*, Stream* stream) { return Serve(method, stream); }, this)));
    }
    for (int i = 0; i < kRawMethodKinds; ++i) {
      const auto method = static_cast<RawMethod>(i);
      AddMethod(new grpc::internal::RpcServiceMethod(kRawMethods[kRawMethodKinds + i],
                                                     grpc::internal::RpcMethod::BIDI_STREAMING, nullptr));
      MarkMethodRawCallback(kRawMethodKinds + i,
                            new grpc::internal::CallbackBidiHandler<grpc::ByteBuffer, grpc::ByteBuffer>(
                                [method](grpc::CallbackServerContext*) { return new CallbackStream(method); }));
    }
  }
};

}  // namespace

grpc::ByteBuffer Borrowed(const char* bytes, size_t size) {
  const grpc::Slice slice(bytes, size, grpc::Slice::STATIC_SLICE);
  return grpc::ByteBuffer(&slice, 1);
}

bool CopyFront(const grpc::ByteBuffer& message, void* to, size_t size) {
  std::vector<grpc::Slice> slices;
  if (!message.Dump(&slices).ok()) return false;
  size_t done = 0;
  for (const grpc::Slice& slice : slices) {
    const size_t part = std::min(size - done, slice.size());
    std::memcpy(static_cast<char*>(to) + done, slice.begin(), part);
    done += part;
  }
  return done == size;
}

std::string Whole(const grpc::ByteBuffer& message) {
  std::string value;
  value.reserve(message.Length());
  std::vector<grpc::Slice> slices;
  TIDEPOOL_CHECK(message.Dump(&slices).ok());
  for (const grpc::Slice& slice : slices) {
    value.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  const absl::StatusOr<BlockView> view = BlockView::Parse(value);
  TIDEPOOL_CHECK(view.ok() && view->VerifyRows().ok());
  return value;
}

std::unique_ptr<grpc::Service> MakeRawService() { return std::make_unique<RawService>(); }

void SetRawChannelArguments(grpc::ChannelArguments* arguments, int number) {
  arguments->SetInt("tidepool.channel", number);  // channels with equal arguments would share a connection
  arguments->SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments->SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
}

}  // namespace tidepool::bench
