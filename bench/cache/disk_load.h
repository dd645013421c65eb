// What is put on a disk and read in a turn, by flags that the measurements of the disk tier share: --rounds, --mib,
// --kib and --directory.
#ifndef TIDEPOOL_BENCH_CACHE_DISK_LOAD_H_
#define TIDEPOOL_BENCH_CACHE_DISK_LOAD_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "bench/cache/items.h"

namespace tidepool::bench {

inline constexpr size_t kBatch = 16;  // values written at a time: 4 MiB at 256 KiB, what demotion writes

struct DiskLoad {
  int rounds = 0;
  std::string directory;  // of this process, not made yet
  std::vector<Item> items;
};

// nullopt: a flag is unknown or out of its range; what there is has been printed.
std::optional<DiskLoad> ParseDiskLoad(int argc, char** argv, const std::string& program);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_DISK_LOAD_H_
