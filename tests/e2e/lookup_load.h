// Requests whose answers are known beforehand: contexts of the lookup model, each of them different, and questions
// about them, turn after turn, decoded greedily. The same turns give the same tokens whatever happens to the cache.
#ifndef TIDEPOOL_TESTS_E2E_LOOKUP_LOAD_H_
#define TIDEPOOL_TESTS_E2E_LOOKUP_LOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/generation_client.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::test {

// What is compressed, and whether what is evicted comes back. With kSync a row that is lost fails the request instead
// of changing its answer.
enum class LookupPolicy { kFull, kSnapKv, kSnapKvSync, kSnapKvAsync };

// Turn 0 gives the context, of some 500 tokens; no two of the first 200 contexts share blocks. Later ones ask a
// question each. All answers have `tokens` tokens. Without a session turn t is the context and question t at once.
struct LookupTurn {
  int context = 0;
  LookupPolicy policy = LookupPolicy::kFull;
  int turn = 0;
  int tokens = 8;
  std::string session;  // empty: none

  v1::GenerateRequest Request() const;
};

struct LookupAnswer {
  absl::Status status;
  std::vector<int32_t> ids;
  v1::Usage usage;
};

LookupAnswer Ask(GenerationClient& client, const LookupTurn& turn, absl::Time deadline = absl::InfiniteFuture());

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_E2E_LOOKUP_LOAD_H_
