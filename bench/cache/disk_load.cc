#include "bench/cache/disk_load.h"

#include <unistd.h>

#include <cstdio>

#include "absl/flags/flag.h"
#include "base/flags.h"

ABSL_FLAG(int, rounds, 5, "turns of each side: 1 to 1000");
ABSL_FLAG(int, mib, 512, "MiB put and read in a turn: 16 to 65536");
ABSL_FLAG(int, kib, 256, "size of a value: a multiple of 32 up to 4096");
ABSL_FLAG(std::string, directory, "/tmp", "where the databases are made, and removed");

namespace tidepool::bench {

std::optional<DiskLoad> ParseDiskLoad(int argc, char** argv, const std::string& program) {
  const auto rest = ParseFlags(argc, argv);
  const int rounds = absl::GetFlag(FLAGS_rounds), mib = absl::GetFlag(FLAGS_mib), kib = absl::GetFlag(FLAGS_kib);
  if (!rest.ok() || !rest->empty() || rounds < 1 || rounds > 1000 || mib < 16 || mib > 65'536 || kib < 32 ||
      kib > 4096 || kib % 32 != 0) {
    std::fprintf(stderr, "usage: %s [flags]\n%s", program.c_str(), FlagHelp({program, "disk_load"}).c_str());
    return std::nullopt;
  }
  const int kv_heads = kib / 32;
  return DiskLoad{.rounds = rounds,
                  .directory = absl::GetFlag(FLAGS_directory) + "/tidepool-" + program + "-" + std::to_string(getpid()),
                  .items = MakeItems(kv_heads, ItemsIn(kv_heads, static_cast<size_t>(mib) << 20), 0)};
}

}  // namespace tidepool::bench
