// Choices of rows that are not each kv head's own (RecallSpec::select_scope): who chooses in a layer, and what rows
// have of the attention of all heads that choose together.
#ifndef TIDEPOOL_WORKER_KV_JOINT_CHOICE_H_
#define TIDEPOOL_WORKER_KV_JOINT_CHOICE_H_

#include <vector>

#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"
#include "worker/kv/row_scores.h"

namespace tidepool {

enum class Chooser {
  kHead,           // each kv head
  kHeadsTogether,  // all of the layer
  kLayerBelow,     // the heads want what those of the nearest layer below have chosen that choose together
};
// Of each layer.
std::vector<Chooser> ChoosersOf(const RecallSpec& spec, int layers);

class JointShares {
 public:
  void Clear();
  // A head whose weights are set.
  void Add(const RowScores& scores);
  // The mean over heads, by position; empty: none was added.
  absl::Span<const float> Mean();

 private:
  std::vector<float> shares_;
  int heads_ = 0;  // of which shares_ is the sum
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_JOINT_CHOICE_H_
