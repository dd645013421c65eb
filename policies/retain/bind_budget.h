// Makes budgets bind. The published rules exceed what they are given by design or by rounding: dense layers come on
// top, pyramids floor their steps, least rows are rounded up, Ada-KV rounds each head to the nearest row. Where the
// device budget is held, what exceeds it is taken from the layers and heads that can give, in proportion.
#ifndef TIDEPOOL_POLICIES_RETAIN_BIND_BUDGET_H_
#define TIDEPOOL_POLICIES_RETAIN_BIND_BUDGET_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/layer_budget.h"

namespace tidepool {

// `rows`: what the layers may keep together, of each kv head; `tokens`: seen so far, all of which a dense layer keeps.
// Nothing changes when the budgets add up to no more (a layer counts at most `tokens`). Else each layer that is not
// dense gives in proportion to what it has beyond LeastKeptRows. False when that is not enough: then all of these have
// been cut to the least.
// before: what layers had, of each kv head, or none. From step to step shares move by less than a row, and rounded down
// one by one a layer would lose a row now and have it back with the next token; so what rounding leaves of `rows` goes
// to layers that would have fewer than before, a row each, the lower layers first.
bool BindLayerBudgets(const CompressionSpec& spec, int tokens, int64_t rows, absl::Span<const int> before,
                      std::vector<LayerBudget>& budgets);

// Takes heavy rows from the heads that have most, the lower one of equals, until the heads of a layer have no more than
// `average` each on average.
void BindHeadBudgets(const RowBudget& average, std::vector<RowBudget>& heads);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_BIND_BUDGET_H_
