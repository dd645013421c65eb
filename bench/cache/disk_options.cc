// What RocksDB's options are worth for the disk tier's values: each is changed alone, beside the options as the tier
// has them, in turns, on a bare loop: sustained puts (in batches, until all is in files), puts that are durable, gets
// in random order with the files in the page cache and without, and the bytes that went to files for each byte put. A
// quarter of the values is put again, to be durable.
//
//   disk_options [--rounds=5] [--mib=512] [--kib=256] [--directory=DIR]
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/freed_memory.h"
#include "bench/cache/bare_rocksdb.h"
#include "bench/cache/disk_files.h"
#include "bench/cache/disk_load.h"
#include "bench/cache/items.h"
#include "cacheservice/rocksdb/database.h"

namespace tidepool::bench {
namespace {

struct Setting {
  const char* name;
  RocksDbChanges changes;
};

const std::vector<Setting>& Settings() {
  static const auto* settings = new std::vector<Setting>{
      {"as the tier has them", {}},
      {"write buffer 8 MiB", {"", "write_buffer_size=8388608;target_file_size_base=8388608"}},
      {"write buffer 64 MiB", {"", "write_buffer_size=67108864;target_file_size_base=67108864"}},
      {"level 0 merged from 4 files", {"", "level0_file_num_compaction_trigger=4"}},
      {"LZ4", {"", "compression=kLZ4Compression"}},
      {"Zstandard", {"", "compression=kZSTD"}},
      {"table checksum CRC-32C", {"", "block_based_table_factory={checksum=kCRC32c}"}},
      {"no table checksum", {"", "block_based_table_factory={checksum=kNoChecksum}"}},
      {"table blocks of 1 MiB", {"", "block_based_table_factory={block_size=1048576}"}},
      {"values in blob files", {"", "enable_blob_files=true;min_blob_size=4096;blob_file_size=33554432"}},
      {"direct reads", {"use_direct_reads=true", ""}},
      {"mapped reads", {"allow_mmap_reads=true", ""}},
      {"direct writes of files", {"use_direct_io_for_flush_and_compaction=true", ""}},
      {"files synced at their end", {"bytes_per_sync=0", ""}},
      {"files synced each 256 KiB", {"bytes_per_sync=262144", ""}},
      {"files synced each 4 MiB", {"bytes_per_sync=4194304", ""}},
      {"4 background jobs", {"max_background_jobs=4", ""}},
  };
  return *settings;
}

constexpr const char* kMeasures[] = {"put", "durable", "get, cold", "get, warm", "amplified"};
using Measured = std::map<std::string, std::vector<double>>;  // by measure: MB/s, or bytes for each byte

void PutAll(BareRocksDb& database, absl::Span<const Item> items, bool durable) {
  for (size_t i = 0; i < items.size(); i += kBatch) database.Put(items.subspan(i, kBatch), durable);
}

double BytesOf(absl::Span<const Item> items) {
  double bytes = 0;
  for (const Item& item : items) bytes += static_cast<double>(item.value->size());
  return bytes;
}

void TakeTurn(BareRocksDb& database, const std::string& directory, const std::vector<Item>& items, unsigned seed,
              Measured& measured) {
  const double bytes = BytesOf(items), written_before = WrittenBytes();
  double start = Seconds();
  PutAll(database, items, /*durable=*/false);
  database.Flush();
  measured["put"].push_back(bytes / 1e6 / (Seconds() - start));
  measured["amplified"].push_back((WrittenBytes() - written_before) / bytes);
  std::vector<Item> shuffled = items;
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(seed));
  ForgetPages(directory);
  for (const char* what : {"get, cold", "get, warm"}) {
    start = Seconds();
    database.GetAndCompare(shuffled);
    measured[what].push_back(bytes / 1e6 / (Seconds() - start));
  }
  const auto again = absl::MakeConstSpan(items).first(std::max<size_t>(items.size() / 4, 1));
  start = Seconds();
  PutAll(database, again, /*durable=*/true);
  measured["durable"].push_back(BytesOf(again) / 1e6 / (Seconds() - start));
}

// Ratios are of the same rounds.
void Print(const std::vector<Measured>& measured) {
  std::printf("%-28s", "MB/s, others to the first");
  for (const char* measure : kMeasures) std::printf(" %18s", measure);
  for (size_t i = 0; i < measured.size(); ++i) {
    std::printf("\n%-28s", Settings()[i].name);
    for (const char* measure : kMeasures) {
      const std::vector<double>&base = measured[0].at(measure), &here = measured[i].at(measure);
      if (i == 0 || std::string(measure) == "amplified") {
        std::printf(" %18.3f", MedianOf(here));
        continue;
      }
      std::vector<double> ratios;
      for (size_t round = 0; round < here.size(); ++round) ratios.push_back(here[round] / base[round]);
      std::printf("   %.2f (%.2f-%.2f)", MedianOf(ratios), *std::min_element(ratios.begin(), ratios.end()),
                  *std::max_element(ratios.begin(), ratios.end()));
    }
  }
  std::printf("\n");
}

int Main(int argc, char** argv) {
  KeepFreedMemory();  // as tidepool-cache
  const std::optional<DiskLoad> load = ParseDiskLoad(argc, argv, "disk_options");
  if (!load.has_value()) return 2;
  const std::string& root = load->directory;
  std::filesystem::create_directories(root);
  TIDEPOOL_CHECK(Database::Open({.data_dir = root + "/tier"}).ok());  // leaves its options there
  std::vector<Measured> measured(Settings().size());
  for (int round = 0; round < load->rounds; ++round) {
    // Each round begins elsewhere.
    for (size_t turn = 0; turn < Settings().size(); ++turn) {
      const size_t i = (turn + static_cast<size_t>(round) * 4) % Settings().size();
      const std::string directory = root + "/bare";
      {
        BareRocksDb database(directory, root + "/tier", Settings()[i].changes);
        TakeTurn(database, directory, load->items, static_cast<unsigned>(round), measured[i]);
      }
      std::filesystem::remove_all(directory);
    }
  }
  std::filesystem::remove_all(root);
  Print(measured);
  return 0;
}

}  // namespace
}  // namespace tidepool::bench

int main(int argc, char** argv) { return tidepool::bench::Main(argc, argv); }
