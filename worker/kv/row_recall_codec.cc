// What of recall goes with a context that is saved: slots, index, thresholds and averages.
#include "worker/kv/row_recall.h"

namespace tidepool {

void RowRecall::Save(ByteWriter& out) const {
  out.Put<int32_t>(slots_);
  index_->Save(out);
  for (const HeadState& state : heads_) {
    out.Put<bool>(state.threshold.started);
    out.Put<float>(state.threshold.theta);
    out.Put<int32_t>(static_cast<int32_t>(state.average.size()));
    for (const SlotRow& row : state.average) {
      out.Put<int32_t>(row.position);
      out.Put<float>(row.average);
      out.Put<int32_t>(row.since);
    }
  }
}

bool RowRecall::Load(ByteReader& in) {
  const int32_t slots = in.Get<int32_t>();
  if (slots < 0) return false;
  set_slots(slots);
  if (!index_->Load(in)) return false;
  for (HeadState& state : heads_) {
    state.threshold.started = in.Get<bool>();
    state.threshold.theta = in.Get<float>();
    const int32_t count = in.Get<int32_t>();
    for (int32_t i = 0; i < count && in.ok(); ++i) {
      const int32_t position = in.Get<int32_t>();
      if (!state.average.empty() && position <= state.average.back().position) return false;
      const float average = in.Get<float>();
      state.average.push_back({position, average, in.Get<int32_t>()});
    }
  }
  return in.ok();
}

}  // namespace tidepool
