// Round trips of small recalls, alone and while bulk offload loads the other channel, beside raw ping-pongs of the same
// sizes.
#ifndef TIDEPOOL_BENCH_CACHE_ROUND_TRIPS_H_
#define TIDEPOOL_BENCH_CACHE_ROUND_TRIPS_H_

#include <nlohmann/json.hpp>

namespace tidepool::bench {

// Prints a line for each. Every row recalled is compared.
nlohmann::json MeasureRoundTrips(bool unix_socket, int count);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_ROUND_TRIPS_H_
