// Suites `text` and `divergence`: a text is compressed at its end, question-agnostic by nature, and goes on.
//
//   text        negative log-likelihood of its next 128 tokens, nats per token; `loss` is that minus the full cache's.
//   divergence  at the same 128 places: KL from the full cache's next-token distribution (a lower bound, divergence.h).
//               Over the 64 tokens that the full cache writes greedily: the share that this cache, fed with them, would
//               have written too, and how many it writes before the first difference.
#ifndef TIDEPOOL_BENCH_QUALITY_TEXTS_H_
#define TIDEPOOL_BENCH_QUALITY_TEXTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bench/quality/bench_engine.h"
#include "bench/quality/cell.h"

namespace tidepool::quality {

class TextSuite {
 public:
  // files: of texts, in order. divergence: measure that too.
  TextSuite(BenchEngine* engine, const std::vector<std::string>& files, bool divergence);

  // length: of context and continuation together; texts that are shorter are left out. The full cache comes first.
  // metrics of the cell `text`: texts, nll, loss, loss_error (standard error over texts); of the cell `divergence`: kl,
  // agree, prefix.
  std::vector<Cell> Measure(const Setting& setting, int length);

 private:
  // What the full cache does.
  struct Reference {
    double nll = 0;
    std::vector<TokenLogprob> continuation;
    std::vector<int32_t> greedy;
  };
  struct Sums {
    double nll = 0, loss = 0, kl = 0, agree = 0, prefix = 0;
    std::vector<double> losses, kls;
    int texts = 0;
  };
  void MeasureOne(const Setting& setting, int text, int length, Sums& sums, Cost& cost);

  BenchEngine* const engine_;
  const bool divergence_;
  std::vector<std::vector<int32_t>> texts_;
  std::map<std::pair<int, int>, Reference> references_;  // by text and length
};

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_TEXTS_H_
