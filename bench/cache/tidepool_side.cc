// Values through a real tidepool-cache and the client that workers use.
#include <optional>
#include <utility>

#include "base/check.h"
#include "bench/cache/side.h"
#include "bench/cache/tidepool_server.h"

namespace tidepool::bench {
namespace {

class TidepoolSide final : public Side {
 public:
  TidepoolSide(int kv_heads, size_t memory_bytes, bool unix_socket)
      : server_(kv_heads, memory_bytes, unix_socket), cache_(server_.Connect()) {}

  std::string name() const override { return "tidepool"; }
  int pid() const override { return server_.pid(); }

  void PreparePut(absl::Span<const Item> items) override { given_ = CopiesOf(items); }
  void Put(absl::Span<const Item> items) override { OffloadAll(cache_.get(), items, std::move(given_)); }

  ReadValues Get(absl::Span<const Item> items) override {
    std::vector<BlockId> ids;
    for (const Item& item : items) ids.push_back(item.id);
    auto values = cache_->FetchBlocks(ids, absl::InfiniteFuture());
    TIDEPOOL_CHECK(values.ok());
    values_ = *std::move(values);
    ReadValues read(values_.size());
    for (size_t i = 0; i < values_.size(); ++i) {
      TIDEPOOL_CHECK(values_[i].has_value());
      read[i].push_back(*values_[i]);
    }
    return read;
  }

 private:
  const TidepoolServer server_;
  const std::unique_ptr<RemoteCache> cache_;
  std::vector<std::string> given_;
  std::vector<std::optional<std::string>> values_;
};

}  // namespace

std::unique_ptr<Side> MakeTidepoolSide(int kv_heads, size_t memory_bytes, bool unix_socket) {
  return std::make_unique<TidepoolSide>(kv_heads, memory_bytes, unix_socket);
}

}  // namespace tidepool::bench
