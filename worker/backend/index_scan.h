// A recall index of product codes, as a backend takes it to its device, and what recall asks of it there.
#ifndef TIDEPOOL_WORKER_BACKEND_INDEX_SCAN_H_
#define TIDEPOOL_WORKER_BACKEND_INDEX_SCAN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "policies/recall/product_code.h"

namespace tidepool {

// What a backend keeps of an index, as long as that lives.
class IndexOnDevice {
 public:
  virtual ~IndexOnDevice() = default;
};

// One (layer, kv head) of an index. Codes and segments are only ever appended to.
struct IndexCodes {
  int head = 0, heads = 0;  // of the index
  ProductShape shape;       // of 4 bits, four channels to a group
  absl::Span<const uint8_t> codes;
  struct Segment {
    int32_t first_row = 0;
    const ProductTables* tables = nullptr;
  };
  std::vector<Segment> segments;  // by first row, the first one's is 0
  std::unique_ptr<IndexOnDevice>* on_device = nullptr;

  int32_t rows() const { return static_cast<int32_t>(codes.size() * 2 / shape.groups); }
};

// The rows with the largest weights: the softmax of q.k / sqrt(head_dim) over candidates, mean over the queries.
struct IndexScan {
  IndexCodes index;
  absl::Span<const float* const> queries;  // each [head_dim]
  int32_t positions = 0;
  std::vector<uint32_t> candidates;  // a bit for each position; at least one is set
  std::vector<float> exact;          // [queries][positions - rows with codes]: q.k of those after them
  std::vector<int32_t> held;         // candidates that are told of though they be not among the best, ascending
  int32_t count = 0;                 // of rows to be found; fewer where there are fewer candidates

  bool done = false;                   // else the device has no room for the index
  std::vector<int32_t> rows;           // found or held, ascending
  std::vector<float> estimate, share;  // [queries][rows]: q.k, and the softmax's term, not normalised
  std::vector<float> rest;             // [queries]: the sum of the other candidates' terms
  // [queries]: of all candidates' terms, and of all rows', none of these taken above e^60 of the largest candidate's.
  std::vector<float> sum, all;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_INDEX_SCAN_H_
