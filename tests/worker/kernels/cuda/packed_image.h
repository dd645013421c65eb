// Packed pages as the cpu packs them (worker/backend/cpu/pack_rows.h), in the device's layout.
#ifndef TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_PACKED_IMAGE_H_
#define TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_PACKED_IMAGE_H_

#include <cstdint>
#include <cstring>
#include <vector>

#include "policies/kv/packed_page.h"
#include "worker/backend/cpu/pack_rows.h"

namespace tidepool::test {

// keys, values: [kGroupTokens][head_dim]. The keys' codes lie row by row.
inline std::vector<char> PackedOnDevice(KvPrecision precision, int head_dim, const std::vector<float>& keys,
                                        const std::vector<float>& values) {
  const PackedPage layout(precision, head_dim);
  std::vector<char> page(layout.bytes);
  PackRows(precision, head_dim, keys.data(), values.data(), page.data());
  const std::vector<char> packed = page;
  const int bits = CodeBits(precision);
  std::memset(page.data() + layout.key_codes, 0, kGroupTokens * head_dim * bits / 8);
  for (int token = 0; token < kGroupTokens; ++token) {
    for (int c = 0; c < head_dim; ++c) {
      const size_t from = layout.key_codes + (static_cast<size_t>(token / 16) * head_dim + c) * layout.code_bytes;
      const int shift = token % 16 * bits, to = (token * head_dim + c) * bits;
      const int code = static_cast<uint8_t>(packed[from + shift / 8]) >> shift % 8 & ((1 << bits) - 1);
      page[layout.key_codes + to / 8] = static_cast<char>(page[layout.key_codes + to / 8] | code << to % 8);
    }
  }
  return page;
}

// What the rows are then: [kGroupTokens][K, V][head_dim].
inline std::vector<float> Expanded(KvPrecision precision, int head_dim, const std::vector<float>& keys,
                                   const std::vector<float>& values) {
  std::vector<char> page(PackedPage(precision, head_dim).bytes);
  PackRows(precision, head_dim, keys.data(), values.data(), page.data());
  std::vector<float> rows(size_t{2} * kGroupTokens * head_dim);
  for (int token = 0; token < kGroupTokens; ++token) {
    float* row = rows.data() + static_cast<size_t>(token) * 2 * head_dim;
    UnpackRow(precision, head_dim, page.data(), token, row, row + head_dim);
  }
  return rows;
}

// The ranges of a row become NaN, those that it has for itself.
inline void PoisonRow(KvPrecision precision, int head_dim, int token, char* page) {
  const PackedPage layout(precision, head_dim);
  if (precision == KvPrecision::kInt8) std::memset(page + 2 * token, 0xff, 2);
  const size_t bytes = size_t{2} * layout.value_groups;
  std::memset(page + layout.value_scales + token * bytes, 0xff, bytes);
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_PACKED_IMAGE_H_
