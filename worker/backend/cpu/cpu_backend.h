// The `cpu` backend: transformer steps on the host's cores with the kernels of worker/kernels/cpu.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_CPU_BACKEND_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_CPU_BACKEND_H_

#include <memory>
#include <vector>

#include "worker/backend/backend.h"
#include "worker/backend/cpu/cpu_weights.h"
#include "worker/backend/cpu/float_buffer.h"
#include "worker/backend/cpu/page_memory.h"
#include "worker/backend/cpu/step_attention.h"
#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/model/model.h"

namespace tidepool {

class CpuBackend : public Backend {
 public:
  CpuBackend(std::shared_ptr<const Model> model, const BackendOptions& options, KvLayout layout, int32_t pages,
             std::unique_ptr<PageMemory> memory);

  const KvLayout& layout() const override { return layout_; }
  PagePool& pool() override { return pool_; }
  const Rope& rope() const override { return rope_; }
  bool sums_steps() const override { return true; }
  bool copies_new_rows() const override { return true; }
  void Step(absl::Span<const StepSlice> slices, StepHook* hook) override;
  void ReadRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots, char* out) override;
  bool KeyScores(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                 absl::Span<const int32_t> slots, float* out) override;
  bool KeyCosines(const SequenceRows& rows, int layer, int kv_head, const float* vector,
                  absl::Span<const int32_t> slots, float* out) override;
  std::optional<Alike> MostLike(const SequenceRows& rows, int layer, int kv_head, int32_t slot,
                                absl::Span<const int32_t> going) override;
  void MixRows(SequenceRows& rows, int layer, absl::Span<const MixTask> tasks) override;
  bool heads_at_once() const override { return true; }
  void WriteRow(SequenceRows& rows, int layer, int kv_head, int32_t slot, const char* row) override;
  void Repack(SequenceRows& rows, int layer, int kv_head) override { RepackAll(rows, {{layer, kv_head}}); }
  void RepackAll(SequenceRows& rows, absl::Span<const HeadAt> heads) override;
  void Pack(SequenceRows& rows, KvPrecision precision, absl::Span<const PackTask> tasks) override;
  void MovePackedRow(SequenceRows& rows, int layer, int kv_head, int32_t from, int32_t to) override;
  void FillGroup(const RowGroup& group, const char* rows) override;
  void Probabilities(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                     absl::Span<const int32_t> visible, float* out) override;
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) override;

 private:
  void Embed(absl::Span<const StepSlice> slices, float* x);
  // Of the step's tokens: queries and keys get their positions, and the new rows go to their slots.
  void RotateAndStore(absl::Span<const StepSlice> slices, int layer);
  void Logits(absl::Span<const StepSlice> slices);
  // Moves the plain rows of a head to its plain slots 0, 1, ... by ascending position.
  void PutInOrder(const HeadRows& head);
  // A plain row's key and value in float32.
  void ReadFloats(const HeadRows& head, int32_t slot, float* row) const;
  // Two arrays of count rows' keys and values in float32, from rows in the layout's type.
  void Split(const char* rows, int count, float* keys, float* values) const;

  const std::shared_ptr<const Model> model_;
  const ModelConfig& config_;
  const Rope rope_;
  const KvLayout layout_;
  const std::vector<PackedPage> packed_layouts_;  // by precision; kF16's is not used
  ThreadTeam team_;
  CpuWeights weights_;
  std::unique_ptr<PageMemory> memory_;
  PagePool pool_;

  Activations activations_;
  StepAttention attention_;
  FloatBuffer x_, normed_, q_, k_, v_, attended_, gate_, up_, cosine_, sine_, logits_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_CPU_BACKEND_H_
