// What a thread will read, asked for early and in the order in which it lies in memory.
//
// Memory is slower than what attention does with it, and gives most where lines are asked for one after the other,
// further ahead than the machine does by itself. Attention reads the keys of some pages and then their values, which
// lie between the keys: so what is asked for is not what is read so much later, but what lies next. Lines go to the
// second cache.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_READ_AHEAD_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_READ_AHEAD_H_

#include <cstdint>

namespace tidepool {

struct ReadAhead {
  static constexpr int kLine = 64;  // bytes

  // Lines of memory side by side.
  struct Run {
    const char* at;
    int32_t lines;
  };

  // So many lines are read now: as many to be asked for meanwhile, side by side. Null: nothing more is known to come,
  // or enough is under way. Where too few are some are asked for at once.
  const char* Take(int32_t count);

  // What was not asked for yet: the rest of *run, then those behind it.
  const Run* run = nullptr;
  const Run* end = nullptr;
  int32_t asked = 0;  // lines of *run
  // Lines that were asked for and not read yet, and how many they should be.
  int32_t lead = 0, most = 0;

 private:
  const char* Next(int32_t& count);
};

// Take, without a call in the common case. Internal linkage, like all that several instruction sets include.
static inline const char* TakeLines(ReadAhead& ahead, int32_t count) {
  const int32_t asked = ahead.asked + count;
  if (ahead.run == ahead.end || ahead.lead != ahead.most || asked >= ahead.run->lines) return ahead.Take(count);
  const char* at = ahead.run->at + int64_t{ahead.asked} * ReadAhead::kLine;
  ahead.asked = asked;
  return at;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_READ_AHEAD_H_
