// Speed of the disk tier beside a bare loop on RocksDB with the same options on the same disk, which is the limit:
// sustained puts (in batches, as demotion writes; until all is in files) and gets in random order, with the files in
// the page cache and without. The sides take turns; every value read is compared, ours with its checksums verified
// before. Also the bytes that went to files for each byte put.
//
//   scripts/bench cache --only disk, or
//   disk_speed [--rounds=5] [--mib=512] [--kib=256] [--directory=DIR] [--json=FILE]
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "base/check.h"
#include "base/freed_memory.h"
#include "bench/cache/bare_rocksdb.h"
#include "bench/cache/disk_files.h"
#include "bench/cache/disk_load.h"
#include "bench/cache/items.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/disk_tier.h"

ABSL_FLAG(std::string, json, "", "file for all that was measured");

namespace tidepool::bench {
namespace {

constexpr size_t kAtOnce = 4;  // values asked for at a time
constexpr uint64_t kDiskBytes = uint64_t{64} << 30;
constexpr uint64_t kWriteBufferBytes = uint64_t{32} << 20;

using Measured = std::map<std::string, std::vector<double>>;  // by what it is: MB/s, or bytes for each byte

class DiskSide {
 public:
  virtual ~DiskSide() = default;
  virtual void Put(absl::Span<const Item> items) = 0;  // one batch
  virtual void Flush() = 0;
  virtual void GetAndCompare(absl::Span<const Item> items) = 0;
};

class OurSide final : public DiskSide {
 public:
  explicit OurSide(const std::string& directory) {
    DatabaseOptions options;
    options.data_dir = directory;
    options.write_buffer_bytes = kWriteBufferBytes;
    database_ = *Database::Open(options);
    tier_ = *DiskTier::Open(database_.get(), kDiskBytes);
  }
  void Put(absl::Span<const Item> items) override {
    std::vector<DiskPut> puts;
    for (const Item& item : items) puts.push_back({.id = item.id, .value = item.value});
    for (const absl::Status& status : tier_->Put(puts, /*durable=*/false)) TIDEPOOL_CHECK(status.ok());
  }
  void Flush() override { TIDEPOOL_CHECK(database_->Flush().ok()); }
  void GetAndCompare(absl::Span<const Item> items) override {
    std::vector<BlockId> ids;
    for (const Item& item : items) ids.push_back(item.id);
    const std::vector<absl::StatusOr<BlockValue>> values = tier_->Get(ids);
    for (size_t i = 0; i < items.size(); ++i) {
      TIDEPOOL_CHECK(values[i].ok() && *values[i] != nullptr && **values[i] == *items[i].value);
    }
  }

 private:
  std::unique_ptr<Database> database_;
  std::unique_ptr<DiskTier> tier_;
};

class BareSide final : public DiskSide {
 public:
  BareSide(const std::string& directory, const std::string& options_of) : database_(directory, options_of, {}) {}
  void Put(absl::Span<const Item> items) override { database_.Put(items, /*durable=*/false); }
  void Flush() override { database_.Flush(); }
  void GetAndCompare(absl::Span<const Item> items) override { database_.GetAndCompare(items); }

 private:
  BareRocksDb database_;
};

void TakeTurn(DiskSide* side, const std::string& directory, absl::Span<const Item> items, const std::string& name,
              unsigned seed, Measured* measured) {
  double bytes = 0;
  for (const Item& item : items) bytes += static_cast<double>(item.value->size());
  const double written_before = WrittenBytes();
  double start = Seconds();
  for (size_t i = 0; i < items.size(); i += kBatch) side->Put(items.subspan(i, kBatch));
  side->Flush();
  (*measured)[name + " put"].push_back(bytes / 1e6 / (Seconds() - start));
  (*measured)[name + " write amplification"].push_back((WrittenBytes() - written_before) / bytes);
  std::vector<Item> shuffled(items.begin(), items.end());
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(seed));
  ForgetPages(directory);
  for (const char* what : {" get, cold", " get, warm"}) {
    start = Seconds();
    for (size_t i = 0; i < shuffled.size(); i += kAtOnce) {
      side->GetAndCompare(absl::MakeConstSpan(shuffled).subspan(i, kAtOnce));
    }
    (*measured)[name + what].push_back(bytes / 1e6 / (Seconds() - start));
  }
}

void Print(const Measured& measured) {
  std::printf("%-8s %-12s %10s %10s   ours / bare of the same rounds\n", "", "", "tidepool", "bare");
  for (const char* what : {"put", "get, cold", "get, warm"}) {
    const std::vector<double>& ours = measured.at(std::string("ours ") + what);
    const std::vector<double>& bare = measured.at(std::string("bare ") + what);
    std::vector<double> ratios;
    for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / bare[i]);
    std::printf("RocksDB  %-12s %10.0f %10.0f   %.2f (%.2f-%.2f)  MB/s\n", what, MedianOf(ours), MedianOf(bare),
                MedianOf(ratios), *std::min_element(ratios.begin(), ratios.end()),
                *std::max_element(ratios.begin(), ratios.end()));
  }
  std::printf("RocksDB  %-12s %10.3f %10.3f   bytes written to files for each byte put\n", "amplified",
              MedianOf(measured.at("ours write amplification")), MedianOf(measured.at("bare write amplification")));
}

int Main(int argc, char** argv) {
  KeepFreedMemory();  // as tidepool-cache
  const std::optional<DiskLoad> load = ParseDiskLoad(argc, argv, "disk_speed");
  if (!load.has_value()) return 2;
  const std::string& root = load->directory;
  Measured measured;
  for (int round = 0; round < load->rounds; ++round) {
    const std::string ours = root + "/ours", bare = root + "/bare";
    {
      OurSide opened(ours);  // leaves its options there
    }
    for (const bool first : {true, false}) {
      const bool our_turn = first == (round % 2 == 0);
      const auto seed = static_cast<unsigned>(round);
      if (our_turn) {
        OurSide side(ours);
        TakeTurn(&side, ours, load->items, "ours", seed, &measured);
      } else {
        BareSide side(bare, ours);
        TakeTurn(&side, bare, load->items, "bare", seed, &measured);
      }
    }
    std::filesystem::remove_all(root);
  }
  Print(measured);
  if (const std::string file = absl::GetFlag(FLAGS_json); !file.empty()) {
    std::ofstream(file) << nlohmann::json(measured).dump(1) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace tidepool::bench

int main(int argc, char** argv) { return tidepool::bench::Main(argc, argv); }
