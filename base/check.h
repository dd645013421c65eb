// TIDEPOOL_CHECK(condition): for what only a bug can cause. Prints where and what, then aborts. Never for input, disk,
// network.
#ifndef TIDEPOOL_BASE_CHECK_H_
#define TIDEPOOL_BASE_CHECK_H_

#include <cstdio>
#include <cstdlib>

#define TIDEPOOL_CHECK(condition)                                                        \
  do {                                                                                   \
    if (__builtin_expect(!(condition), 0)) {                                             \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

#endif  // TIDEPOOL_BASE_CHECK_H_
