// tidepool bench replay: a trace of requests through the replacement policies (cacheservice/replay).
#ifndef TIDEPOOL_CLIENT_CLI_BENCH_REPLAY_H_
#define TIDEPOOL_CLIENT_CLI_BENCH_REPLAY_H_

#include <string>
#include <vector>

#include "client/cli/cli.h"

namespace tidepool::cli {

// The arguments after `replay`, flags included; returns an exit code.
int BenchReplayMain(const Arguments& arguments);
std::string BenchReplayHelp();

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_BENCH_REPLAY_H_
