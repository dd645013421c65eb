// What measurements of a disk need: the clock, the bytes written, files that are not in memory.
#ifndef TIDEPOOL_BENCH_CACHE_DISK_FILES_H_
#define TIDEPOOL_BENCH_CACHE_DISK_FILES_H_

#include <string>
#include <vector>

namespace tidepool::bench {

double Seconds();

// Bytes that this process has had written to files.
double WrittenBytes();

// The next reads of the directory's files come from the disk.
void ForgetPages(const std::string& directory);

// Of one value or more.
double MedianOf(std::vector<double> values);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_DISK_FILES_H_
