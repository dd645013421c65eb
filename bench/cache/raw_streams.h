// The raw streams of bench/cache: byte buffers over gRPC that nobody parses, stores or checks, but for Keep. Each
// method is there twice, by the synchronous API (a thread for each stream) and by the callback API.
#ifndef TIDEPOOL_BENCH_CACHE_RAW_STREAMS_H_
#define TIDEPOOL_BENCH_CACHE_RAW_STREAMS_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <cstdint>
#include <memory>
#include <string>

namespace tidepool::bench {

// Sink: every message is answered by one of kAckBytes. Keep: so is each, once it has been copied into a string of its
// own, verified, and has taken the place of an older one. Source: a SourceRequest is answered by so many values
// (items.h). Echo: a message is answered by one of the size that its first 4 bytes say.
inline constexpr const char* kRawMethods[] = {"/tidepool.bench.Raw/Sink",           "/tidepool.bench.Raw/Keep",
                                              "/tidepool.bench.Raw/Source",         "/tidepool.bench.Raw/Echo",
                                              "/tidepool.bench.Raw/CallbackSink",   "/tidepool.bench.Raw/CallbackKeep",
                                              "/tidepool.bench.Raw/CallbackSource", "/tidepool.bench.Raw/CallbackEcho"};
enum class RawMethod : uint8_t { kSink, kKeep, kSource, kEcho };
inline constexpr int kRawMethodKinds = 4;
inline constexpr size_t kAckBytes = 8;

struct SourceRequest {
  int32_t kv_heads = 0;
  int32_t count = 0;
};

// References `bytes`, which outlive every use of it.
grpc::ByteBuffer Borrowed(const char* bytes, size_t size);
// Copies the first bytes of a message. False when it has less.
bool CopyFront(const grpc::ByteBuffer& message, void* to, size_t size);

// A message's bytes in one piece, verified as a block value.
std::string Whole(const grpc::ByteBuffer& message);

std::unique_ptr<grpc::Service> MakeRawService();

// What both ends of a comparison set, theirs and ours.
void SetRawChannelArguments(grpc::ChannelArguments* arguments, int number);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_RAW_STREAMS_H_
