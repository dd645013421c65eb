#include "cacheservice/embedded/embedded_cache.h"

#include <atomic>
#include <bit>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/background.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "cacheservice/embedded/cache_storage.h"
#include "policies/kv/block_codec.h"

namespace tidepool {
namespace {

// Of an Offload for room in the write-behind buffer: a disk that hangs must not hold the engine up.
constexpr std::chrono::seconds kPatience{2};

}  // namespace

class EmbeddedCache::Impl {
 public:
  Impl(CacheStorage storage, KvLayout layout, const CacheOptions& options)
      : storage_(std::move(storage)),
        layout_(std::move(layout)),
        write_behind_bytes_(options.write_behind_bytes),
        recalls_(options.recall_threads),
        writer_([this] { Write(); }) {}

  ~Impl() {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
      changed_.SignalAll();
    }
    writer_.join();
    // Memory that was not demoted yet is written, so that the next process finds it.
    storage_.blocks->Drain().IgnoreError();
  }

  absl::Status Check(const std::string& value) const {
    TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(value));
    return view.CheckLayout(layout_);
  }

  void Offload(BlockId id, std::string value, const OffloadOptions& options, std::function<void(absl::Status)> done) {
    const size_t bytes = value.size();
    {
      MutexLock lock(&mutex_);
      const auto until = std::chrono::steady_clock::now() + kPatience;
      auto full = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return queued_bytes_ > 0 && queued_bytes_ + bytes > write_behind_bytes_;
      };
      while (options.may_wait && full() && changed_.WaitUntil(&mutex_, until)) {
      }
      if (!full()) {
        queued_bytes_ += bytes;
        queue_.push_back({{.id = id,
                           .value = std::move(value),
                           .durable = options.durable,
                           .parent = options.parent,
                           .tenant = options.tenant},
                          std::move(done)});
        changed_.SignalAll();
        return;
      }
    }
    failures_.fetch_add(1);
    done(absl::ResourceExhaustedError(
        absl::StrCat("cache: the write-behind buffer of ", write_behind_bytes_, " bytes is full")));
  }

  void Write() {
    for (;;) {
      std::vector<Entry> entries;
      {
        MutexLock lock(&mutex_);
        while (queue_.empty() && !stop_) changed_.Wait(&mutex_);
        if (queue_.empty()) return;
        entries.swap(queue_);
      }
      std::vector<BlockPut> puts;
      std::vector<size_t> sizes;
      std::vector<absl::Status> fits;
      for (Entry& entry : entries) {
        fits.push_back(Check(entry.put.value));
        sizes.push_back(entry.put.value.size());
        if (fits.back().ok()) puts.push_back(std::move(entry.put));
      }
      std::vector<absl::StatusOr<Tier>> results = storage_.blocks->PutMany(std::move(puts));
      size_t next = 0;
      for (size_t i = 0; i < entries.size(); ++i) {
        const absl::Status status = fits[i].ok() ? results[next++].status() : fits[i];
        if (status.ok()) {
          offloaded_blocks_.fetch_add(1);
          offloaded_bytes_.fetch_add(static_cast<int64_t>(sizes[i]));
        } else {
          failures_.fetch_add(1);
        }
        {
          MutexLock lock(&mutex_);
          queued_bytes_ -= sizes[i];
          changed_.SignalAll();
        }
        entries[i].done(status);
      }
    }
  }

  struct Entry {
    BlockPut put;
    std::function<void(absl::Status)> done;
  };

  CacheStorage storage_;
  const KvLayout layout_;
  const size_t write_behind_bytes_;
  std::atomic<int64_t> offloaded_blocks_{0}, offloaded_bytes_{0}, failures_{0};
  std::atomic<int64_t> recalled_rows_{0}, recalled_bytes_{0}, missing_rows_{0};
  std::atomic<int64_t> fetched_blocks_{0}, fetched_bytes_{0};
  Mutex mutex_;
  CondVar changed_;
  std::vector<Entry> queue_ ABSL_GUARDED_BY(mutex_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // until stored
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Background recalls_;
  std::thread writer_;
};

EmbeddedCache::EmbeddedCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddedCache::~EmbeddedCache() = default;

absl::StatusOr<std::unique_ptr<EmbeddedCache>> EmbeddedCache::Open(const CacheOptions& options,
                                                                   const KvLayout& layout) {
  TP_ASSIGN_OR_RETURN(CacheStorage storage, CacheStorage::Open(options));
  return std::unique_ptr<EmbeddedCache>(new EmbeddedCache(std::make_unique<Impl>(std::move(storage), layout, options)));
}

absl::StatusOr<PrefixHit> EmbeddedCache::LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) {
  return impl_->storage_.blocks->LookupPrefix(chain, impl_->layout_.layers, terms);
}

void EmbeddedCache::Offload(BlockId id, std::string value, OffloadOptions options,
                            std::function<void(absl::Status)> done) {
  impl_->Offload(id, std::move(value), options, std::move(done));
}

void EmbeddedCache::Recall(std::vector<RowSelection> selections, absl::Time deadline,
                           std::function<void(absl::StatusOr<RecalledRows>)> done) {
  impl_->recalls_.Run([impl = impl_.get(), selections = std::move(selections), deadline, done = std::move(done)] {
    absl::StatusOr<RecalledRows> rows = impl->storage_.blocks->GatherRows(selections, deadline);
    if (rows.ok()) {
      int64_t wanted = 0;
      for (const RowSelection& selection : selections) wanted += std::popcount(selection.row_mask);
      const int64_t came = static_cast<int64_t>(rows->row_checksums.size());
      impl->recalled_rows_.fetch_add(came);
      impl->recalled_bytes_.fetch_add(static_cast<int64_t>(rows->rows.size()));
      impl->missing_rows_.fetch_add(wanted - came);
    }
    done(std::move(rows));
  });
}

absl::StatusOr<std::vector<std::optional<std::string>>> EmbeddedCache::FetchBlocks(absl::Span<const BlockId> ids,
                                                                                   const ReadTerms& terms) {
  TP_ASSIGN_OR_RETURN(const std::vector<BlockValue> values, impl_->storage_.blocks->GetMany(ids, terms));
  std::vector<std::optional<std::string>> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] == nullptr) continue;
    out[i] = *values[i];
    impl_->fetched_blocks_.fetch_add(1);
    impl_->fetched_bytes_.fetch_add(static_cast<int64_t>(out[i]->size()));
  }
  return out;
}

BlockCacheStats EmbeddedCache::Stats() const {
  BlockCacheStats stats;
  stats.offloaded_blocks = impl_->offloaded_blocks_;
  stats.offloaded_bytes = impl_->offloaded_bytes_;
  stats.offload_failures = impl_->failures_;
  stats.recalled_rows = impl_->recalled_rows_;
  stats.recalled_bytes = impl_->recalled_bytes_;
  stats.missing_rows = impl_->missing_rows_;
  stats.fetched_blocks = impl_->fetched_blocks_;
  stats.fetched_bytes = impl_->fetched_bytes_;
  return stats;
}

ManifestStore* EmbeddedCache::manifests() { return impl_->storage_.manifests.get(); }
DiskManifestStore* EmbeddedCache::disk_manifests() { return impl_->storage_.manifests.get(); }
PinTable* EmbeddedCache::pins() { return impl_->storage_.pins.get(); }
TieredStore* EmbeddedCache::blocks() { return impl_->storage_.blocks.get(); }

}  // namespace tidepool
