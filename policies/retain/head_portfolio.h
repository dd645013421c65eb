// FastGen (arXiv 2310.01801; portfolio of AnswerDotAI/cold-compress): each head has the cheapest of several policies
// that still holds most of its attention. Many heads look at nothing but special tokens, punctuation or their
// neighbours; few need everything.
#ifndef TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_
#define TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/token_class.h"

namespace tidepool {

// What a head keeps under a policy: the sinks, and each part that is set. Shares are of the tokens seen, evicted or
// not: a window does not shrink from turn to turn because rows have gone.
struct HeadPolicy {
  bool special = false;
  bool punctuation = false;
  double heavy_share = 0;   // rounded up: the most attended of those that nothing else keeps
  double window_share = 0;  // rounded down but at least one: the last tokens, seen from each query
  bool full = false;        // everything; the other parts only say who goes first when there is no room (PolicyScores)
};

// From the cheapest to the dearest: special; with punctuation; with heavy hitters; with a window; full.
std::vector<HeadPolicy> FastGenPortfolio(double heavy_share = 0.3, double window_share = 0.3);

// The rows of a head, as its newest query sees them: its own is the last one.
struct PortfolioRows {
  absl::Span<const int32_t> positions;    // ascending
  absl::Span<const TokenClass> classes;   // by row
  absl::Span<const float> attention_sum;  // by row: what it has received
  int sinks = 4;                          // first rows
};

// By row: whether the policy keeps it. O(rows log rows).
std::vector<uint8_t> RowsOfPolicy(const HeadPolicy& policy, const PortfolioRows& rows);

// By row, larger is better; minus infinity: the policy does not keep it. Where there is no room for all that it keeps
// (FastGen has no budget: our own), special tokens outlive the rest, and the window and what lies before it shrink in
// proportion: each has ranks from 1 down to 0, the newest and the most attended first. Punctuation is not put first: it
// is every tenth token of a text and would crowd out what heads look at.
std::vector<float> PolicyScores(const HeadPolicy& policy, const PortfolioRows& rows);

// Attention of the last queries of a prompt, one after another up to the last row's position, over a head's rows.
struct PortfolioInput {
  PortfolioRows rows;                 // attention_sum is not looked at: it is that of these queries
  absl::Span<const float> attention;  // [group][queries][rows], causal: 0 beyond a query's own position
  int queries = 0;
  double least_recovered = 0.9;  // T
};

struct PortfolioChoice {
  int policy = 0;             // index into the portfolio
  double recovered = 0;       // mean over the queries of the attention that its rows hold
  std::vector<int32_t> kept;  // rows of the last query, ascending
};

// The first policy that recovers T, the last when none does. `portfolio` is not empty.
PortfolioChoice ChooseHeadPolicy(absl::Span<const HeadPolicy> portfolio, const PortfolioInput& input);

// Attention that each row receives, summed over the queries, mean over the group: [group][queries][rows] to [rows].
std::vector<float> AttentionSums(absl::Span<const float> attention, int queries, int rows);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_HEAD_PORTFOLIO_H_
