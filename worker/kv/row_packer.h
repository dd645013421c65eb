// Key/value precision, the stage after the policy: of the rows that it keeps, those older than the residual window are
// packed in groups of kGroupTokens by ascending position (policies/kv/packed_page.h). Rows that recall brought,
// mixtures and the residual window stay as they are.
//
// When: at the end of a prompt, after the eviction, and after each decoding step; attention within a prompt sees its
// own rows unpacked, so how a prompt is cut into steps changes nothing. A group is packed once, from exact rows: a
// session that is resumed packs the same rows again and gets the same bits.
//
// Evictions leave holes. int8 rows stand alone: they are moved together, codes and all, when the holes would free a
// page. A KIVI group's codes mean nothing without its ranges: it stays until plain rows would take no more bytes than
// its page, then its rows become plain ones with the values that their codes had, and are never packed again (they
// count as mixtures: recall may put the exact row in their place). So no row is ever rounded twice, and packed rows
// never take more than plain ones would.
#ifndef TIDEPOOL_WORKER_KV_ROW_PACKER_H_
#define TIDEPOOL_WORKER_KV_ROW_PACKER_H_

#include <cstdint>
#include <vector>

#include "policies/retain/compression_spec.h"
#include "worker/backend/backend.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class RowPacker {
 public:
  explicit RowPacker(const CompressionSpec& spec)
      : precision_(spec.kv_precision), residual_tokens_(spec.residual_tokens) {}

  // `tokens` have been seen, and the policy has evicted what it wanted to.
  void Settle(Backend& backend, SequenceRows& rows, int32_t tokens) const;

 private:
  // Slots of the rows that are to be packed, kGroupTokens for each group.
  std::vector<int32_t> ToPack(const HeadRows& head, int32_t tokens) const;
  void CloseHoles(Backend& backend, SequenceRows& rows, int layer, int kv_head) const;
  void Dissolve(Backend& backend, SequenceRows& rows, int layer, int kv_head) const;

  const KvPrecision precision_;
  const int32_t residual_tokens_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_PACKER_H_
