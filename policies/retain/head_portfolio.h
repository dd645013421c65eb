// FastGen (arXiv 2310.01801; portfolio of AnswerDotAI/cold-compress): each head has the cheapest of several policies
// that still holds most of its attention. Many heads look at nothing but special tokens, punctuation or their
// neighbours; few need everything.
#ifndef TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_
#define TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

enum class TokenClass : uint8_t { kOther, kSpecial, kPunctuation };

// What a head keeps under a policy: the sinks, and each part that is set.
struct HeadPolicy {
  bool special = false;
  bool punctuation = false;
  double heavy_share = 0;   // of all tokens, rounded up: the most attended of those that nothing else keeps
  double window_share = 0;  // of all tokens, rounded down but at least one: the last ones, seen from each query
  bool full = false;        // everything
};

// From the cheapest to the dearest: special; with punctuation; with 30 % heavy hitters; with a window of 30 %; full.
std::vector<HeadPolicy> FastGenPortfolio();

// Attention of the last queries of a prompt over its `keys` keys.
struct PortfolioInput {
  absl::Span<const float> attention;  // [group][queries][keys], causal: 0 beyond a query's own key
  int queries = 0;                    // at positions keys - queries to keys - 1
  int keys = 0;
  absl::Span<const TokenClass> classes;  // [keys]
  int sinks = 4;
  double least_recovered = 0.9;  // T
};

struct PortfolioChoice {
  int policy = 0;             // index into the portfolio
  double recovered = 0;       // mean over the queries of the attention that its rows hold
  std::vector<int32_t> kept;  // rows of the last query, ascending
};

// The first policy that recovers T, the last when none does. `portfolio` is not empty.
PortfolioChoice ChooseHeadPolicy(absl::Span<const HeadPolicy> portfolio, const PortfolioInput& input);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_
