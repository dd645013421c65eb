// Values as SET and GET of redis-server by hiredis, a few commands under way at a time.
#include <hiredis/hiredis.h>

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "bench/cache/side.h"
#include "tests/cacheservice/resp/redis_servers.h"

namespace tidepool::bench {
namespace {

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class RedisSide final : public Side {
 public:
  RedisSide(int depth, bool unix_socket) : depth_(static_cast<size_t>(depth)) {
    const std::string path = socket_dir_.File("redis.sock");
    test::RedisServer::Options options;
    if (unix_socket) options.arguments = {"--unixsocket", path};
    server_ = std::make_unique<test::RedisServer>(options);
    redis_ = unix_socket ? redisConnectUnix(path.c_str()) : redisConnect("127.0.0.1", server_->port());
    TIDEPOOL_CHECK(redis_ != nullptr && redis_->err == 0);
  }
  ~RedisSide() override { redisFree(redis_); }

  std::string name() const override { return "redis"; }
  int pid() const override { return server_->pid(); }

  // Its own way to bound memory, in order of use, samples keys and knows no times below a second.
  void PreparePut(absl::Span<const Item> items) override {
    if (turns_.size() == kMemoryTurns) {
      Pipeline(
          turns_.front(),
          [this](const Item& item) {
            const std::string key = KeyOf(item);
            const char* argv[] = {"DEL", key.data()};
            const size_t sizes[] = {3, key.size()};
            redisAppendCommandArgv(redis_, 2, argv, sizes);
          },
          [](Reply reply) { TIDEPOOL_CHECK(reply->type == REDIS_REPLY_INTEGER); });
      turns_.pop_front();
    }
    turns_.emplace_back(items.begin(), items.end());
  }

  void Put(absl::Span<const Item> items) override {
    Pipeline(
        items,
        [this](const Item& item) {
          const std::string key = KeyOf(item);
          const char* argv[] = {"SET", key.data(), item.value->data()};
          const size_t sizes[] = {3, key.size(), item.value->size()};
          redisAppendCommandArgv(redis_, 3, argv, sizes);
        },
        [](Reply reply) { TIDEPOOL_CHECK(reply->type == REDIS_REPLY_STATUS); });
  }

  ReadValues Get(absl::Span<const Item> items) override {
    replies_.clear();
    Pipeline(
        items,
        [this](const Item& item) {
          const std::string key = KeyOf(item);
          const char* argv[] = {"GET", key.data()};
          const size_t sizes[] = {3, key.size()};
          redisAppendCommandArgv(redis_, 2, argv, sizes);
        },
        [this](Reply reply) {
          TIDEPOOL_CHECK(reply->type == REDIS_REPLY_STRING);
          replies_.push_back(std::move(reply));
        });
    ReadValues read(replies_.size());
    for (size_t i = 0; i < replies_.size(); ++i) read[i].emplace_back(replies_[i]->str, replies_[i]->len);
    return read;
  }

 private:
  static std::string KeyOf(const Item& item) {
    return absl::StrCat(std::string(item.id.key.AsString()), ":", item.id.layer);
  }

  template <typename Ask, typename Take>
  void Pipeline(absl::Span<const Item> items, Ask ask, Take take) {
    size_t asked = 0;
    for (size_t taken = 0; taken < items.size(); ++taken) {
      while (asked < items.size() && asked < taken + depth_) ask(items[asked++]);
      void* reply = nullptr;
      TIDEPOOL_CHECK(redisGetReply(redis_, &reply) == REDIS_OK);
      take(Reply(static_cast<redisReply*>(reply)));
    }
  }

  const size_t depth_;
  test::TempDir socket_dir_;
  std::unique_ptr<test::RedisServer> server_;
  redisContext* redis_ = nullptr;
  std::vector<Reply> replies_;
  std::deque<std::vector<Item>> turns_;  // that the server holds
};

}  // namespace

std::unique_ptr<Side> MakeRedisSide(int depth, bool unix_socket) {
  return std::make_unique<RedisSide>(depth, unix_socket);
}

}  // namespace tidepool::bench
