// The Offload stream on the worker's side: a bounded write-behind queue, and a stream that is made anew when it breaks.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_OFFLOAD_LANE_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_OFFLOAD_LANE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "cacheservice/remote/lane_stream.h"
#include "cacheservice/remote/remote_cache.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {

class OffloadLane {
 public:
  struct Counters {
    std::atomic<int64_t> blocks{0}, bytes{0}, failures{0}, resent{0}, reconnects{0};
  };

  // On failure the value comes back, for another service.
  using Done = std::function<void(absl::Status, std::string value)>;

  OffloadLane(const RemoteCacheOptions& options, const std::shared_ptr<grpc::Channel>& channel);
  ~OffloadLane();

  // `now`: also past write_behind_bytes, without waiting.
  void Offload(BlockId id, std::string value, const OffloadOptions& options, bool now, Done done);
  // Ends the stream and fails what is queued (Unavailable), soon, from the lane's thread.
  void Interrupt();
  // The service is there again: connects without further pause.
  void Resume();
  const Counters& counters() const { return counters_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Stream = LaneStream<v1::OffloadResponse>;
  struct Entry {
    BlockId id;
    std::shared_ptr<std::string> value;  // shared with who sends it, and with gRPC
    OffloadOptions options;
    Done done;
    Clock::time_point give_up;
    uint64_t sequence = 0;  // in the present stream; 0: not sent
    int damaged = 0;        // times that it has arrived so
  };

  void Run();
  // One life of a stream. Returns how it ended: it is broken, the oldest value was not answered in time, or the lane
  // stops.
  grpc::Status RunStream();
  // Of the stream under way. The next frame to be written.
  std::optional<grpc::ByteBuffer> NextMessage();
  void Take(const v1::OffloadResponse& response, Stream* stream);
  void Break();
  // Credit allows the next value.
  bool MaySend() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayWrite() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_ && !broken_ && MaySend(); }
  // The value that is answered, which has left the queue. Null: nobody waits for it, or it is sent again.
  std::shared_ptr<Entry> TakeAnswered(const v1::OffloadResult& result) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a result that says that the value was damaged: it is sent again, unless that has happened too often.
  bool SendAgain(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What `done` is given when the value was not stored.
  static std::string TakeBack(Entry& entry);
  bool HasRoom(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queued_bytes_ + bytes <= options_.write_behind_bytes;
  }
  void FailOld(const absl::Status& why, bool all);

  const RemoteCacheOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  Counters counters_;
  Mutex mutex_;
  CondVar changed_;
  // Front: sent and not answered, in the order sent; then the unsent.
  std::deque<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
  size_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t sent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t credit_ ABSL_GUARDED_BY(mutex_) = 0;
  bool unchecked_ ABSL_GUARDED_BY(mutex_) = false;  // the service looks at the values' own checksums only
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;  // Offloads, for room
  // By all Offloads, since the buffer was last half empty.
  Clock::duration waited_ ABSL_GUARDED_BY(mutex_) = Clock::duration::zero();
  bool interrupted_ ABSL_GUARDED_BY(mutex_) = false;
  bool resumed_ ABSL_GUARDED_BY(mutex_) = false;  // since the pause before the present attempt
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the present stream
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;  // a message is, or is about to be; else Write may be called
  // Whoever writes has these to himself.
  bool hello_sent_ = false;
  std::shared_ptr<Entry> entry_;              // whose value is being written
  std::shared_ptr<const std::string> value_;  // null: none
  size_t sent_of_value_ = 0;                  // bytes
  uint64_t sequence_ = 0, last_sequence_ = 0;
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_OFFLOAD_LANE_H_
