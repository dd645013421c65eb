// The client's end of a raw stream (raw_streams.h), open from its construction on. One thread uses it.
#ifndef TIDEPOOL_BENCH_CACHE_RAW_CLIENT_H_
#define TIDEPOOL_BENCH_CACHE_RAW_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/cache/raw_streams.h"

namespace tidepool::bench {

class RawStream {
 public:
  virtual ~RawStream() = default;

  // Over a channel of its own (`number`).
  static std::unique_ptr<RawStream> Open(const std::string& address, RawMethod method, bool callback, int number);

  // Is given each answer where it arrives, before it is waited for the next one.
  using Take = std::function<void(size_t index, const grpc::ByteBuffer& answer)>;

  // Writes the messages while it reads `answers` of them.
  virtual std::vector<grpc::ByteBuffer> Exchange(const std::vector<grpc::ByteBuffer>& messages, size_t answers,
                                                 const Take& take = nullptr) = 0;
};

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_RAW_CLIENT_H_
