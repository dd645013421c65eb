// Suite `mass`: a text is read, then goes on token by token with its full cache. Of what a step's queries give to the
// rows that might be away, how much lies in the best of them, chosen by an index? (recall.md section 10, "Attention
// mass": the second acceptance criterion of its section 14.)
//
// The choices are RowRecall's own, made by the index alone: no shortlist. Beside them:
//
//   static  by the mean attention of the last 32 queries of the prefix
//   oracle  by the attention itself
// `exact` is not `oracle`: recall weighs the heads of a group by their softmax over the rows it may bring (recall.md
// section 5), attention by that over all rows.
#ifndef TIDEPOOL_BENCH_QUALITY_MASS_H_
#define TIDEPOOL_BENCH_QUALITY_MASS_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "bench/quality/cell.h"
#include "worker/backend/backend.h"

namespace tidepool::quality {

// Rows that are brought to each (layer, kv head).
inline constexpr std::array<int, 4> kMassRows = {64, 128, 256, 512};

struct MassPlan {
  int prefix_tokens = 3584;
  int steps = 256;  // teacher-forced, behind the prefix
};

struct CapturedMass {
  std::string selection;  // an index, "static" or "oracle"
  // By kMassRows: of the attention that rows which may be chosen receive, in all steps, kv heads and layers from the
  // third on together.
  std::array<double, kMassRows.size()> share{};
};

// prefix_tokens + steps of `tokens`, which has as many.
std::vector<CapturedMass> CaptureMass(Backend& backend, int query_heads, absl::Span<const int32_t> tokens,
                                      const MassPlan& plan);

// A cell `mass-SELECTION` for each selection, of the full cache: metrics texts and the means over texts, rows64 to
// rows512; items: by text, of 256 rows. A text that is too short has a shorter prefix.
std::vector<Cell> MeasureMass(const std::string& model_path, const std::vector<std::string>& files, int threads);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_MASS_H_
