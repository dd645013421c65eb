// Lets observers look at a step after recall has brought its rows and before a layer attends to them.
#ifndef TIDEPOOL_WORKER_KV_OBSERVED_STEP_H_
#define TIDEPOOL_WORKER_KV_OBSERVED_STEP_H_

#include <cstdint>
#include <vector>

#include "worker/backend/backend.h"
#include "worker/kv/retention_observer.h"

namespace tidepool {

// One slice of a step, in its order.
struct ObservedSlice {
  RetentionObserver* observer = nullptr;  // null: nobody looks
  const SequenceRows* rows = nullptr;
  int32_t first_position = 0;
  int32_t tokens = 0;
  bool compressed = false;
};

class ObservedStep final : public StepHook {
 public:
  // Both outlive the step. `inner` acts first.
  ObservedStep(Backend* backend, StepHook* inner) : backend_(backend), inner_(inner) {}

  void Add(const ObservedSlice& slice) {
    slices_.push_back(slice);
    watched_ = watched_ || slice.observer != nullptr;
  }
  // The hook for Backend::Step: `inner` itself when nobody looks.
  StepHook* hook() { return watched_ ? this : inner_; }

  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override {
    inner_->BeforeAttention(layer, queries);
    for (size_t i = 0; i < slices_.size(); ++i) {
      for (int kv_head = 0; kv_head < backend_->layout().kv_heads; ++kv_head) {
        inner_->BeforeHead(layer, static_cast<int>(i), kv_head);
      }
    }
    for (size_t i = 0; i < slices_.size(); ++i) {
      const ObservedSlice& slice = slices_[i];
      if (slice.observer == nullptr) continue;
      slice.observer->BeforeAttention(*backend_, *slice.rows, layer, slice.first_position, slice.tokens,
                                      slice.compressed, queries[i]);
    }
  }
  void AfterAttention(int layer) override { inner_->AfterAttention(layer); }
  Comparison* Compares(int layer, int slice, int kv_head) override { return inner_->Compares(layer, slice, kv_head); }
  void AfterHead(int layer, int slice, int kv_head) override { inner_->AfterHead(layer, slice, kv_head); }
  bool AfterHeadMayBeLate(int slice) const override { return inner_->AfterHeadMayBeLate(slice); }
  bool MayAttendBySlot(int slice) const override { return inner_->MayAttendBySlot(slice); }
  bool ActsInStep() const override { return true; }

 private:
  Backend* const backend_;
  StepHook* const inner_;
  std::vector<ObservedSlice> slices_;
  bool watched_ = false;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_OBSERVED_STEP_H_
