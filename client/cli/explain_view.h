// What `tidepool admin explain` says: from where the blocks of a prompt are to what a request would find, block by
// block. Pure: the asking is admin_explain.cc's.
#ifndef TIDEPOOL_CLIENT_CLI_EXPLAIN_VIEW_H_
#define TIDEPOOL_CLIENT_CLI_EXPLAIN_VIEW_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tidepool/v1/cache_admin.pb.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

struct Explanation {
  struct Block {
    enum class Result { kHit, kSlow, kMiss, kUnreached, kUnused };
    int64_t first_token = 0, last_token = 0;
    Result result = Result::kMiss;
    std::string where;  // tiers and pod; empty: nowhere
    std::string why;    // empty: a hit
  };
  std::vector<Block> blocks;
  int64_t prompt_tokens = 0;
  int64_t hit_tokens = 0;
  std::string closest;  // about the session that begins alike; empty: there is none
  std::string
      loading;  // of what would hit: what computing and loading would take; empty: nothing, or the worker does not say
};

// `answers`: of each pod that was asked, by address. `piece`: the text of a token, for people.
Explanation Explain(const v1::ListBlockKeysResponse& keys,
                    const std::vector<std::pair<std::string, v1::ExplainResponse>>& answers,
                    const std::function<std::string(int32_t)>& piece);

const char* NameOf(Explanation::Block::Result result);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_EXPLAIN_VIEW_H_
