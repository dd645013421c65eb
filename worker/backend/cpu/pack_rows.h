// Rows into packed pages and out of them (policies/kv/packed_page.h), in plain arithmetic. Attention reads packed pages
// with the kernels of worker/kernels/cpu/attention.h.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_PACK_ROWS_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_PACK_ROWS_H_

#include <cstdint>

#include "policies/kv/packed_page.h"

namespace tidepool {

// keys, values: [kGroupTokens][head_dim]; page: PackedPage(precision, head_dim).bytes, written whole.
void PackRows(KvPrecision precision, int head_dim, const float* keys, const float* values, char* page);

// The row of a token of the group: key and value, head_dim each.
void UnpackRow(KvPrecision precision, int head_dim, const char* page, int token, float* key, float* value);

// int8: copies a row from one page to another, bit for bit.
void CopyInt8Row(int head_dim, const char* from, int from_token, char* to, int to_token);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_PACK_ROWS_H_
