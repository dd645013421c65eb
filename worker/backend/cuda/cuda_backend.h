// The `cuda` backend: transformer steps on a GPU with the kernels of worker/kernels/cuda. Above `Device` it is plain
// C++: with the host device the same code runs, kernels and all, without a GPU.
//
// Differences from `cpu`, within the tolerance of the reference tests: sums run in another order, prompts are
// multiplied in half precision, and a row's attention is added up by slot, not by position. So recall gives the same
// rows, but not the same last bits as rows that were never evicted.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_

#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/mutex.h"
#include "worker/backend/backend.h"
#include "worker/backend/cuda/device_index.h"
#include "worker/backend/cuda/device_memory.h"
#include "worker/backend/cuda/device_pages.h"
#include "worker/backend/cuda/device_weights.h"
#include "worker/backend/cuda/page_tables.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/model/model.h"

namespace tidepool::cuda {

// More activation rows than these are multiplied by the library, with the weights as halves: MatTile would read them
// again for the next 64.
inline constexpr int kMostVectorRows = 64;

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, std::shared_ptr<const Model> model, const BackendOptions& options,
              KvLayout layout, int32_t pages, std::unique_ptr<ThreadTeam> team, std::unique_ptr<DeviceWeights> weights,
              std::unique_ptr<DevicePages> device_pages);
  ~CudaBackend() override;

  const KvLayout& layout() const override { return layout_; }
  PagePool& pool() override { return pool_; }
  const Rope& rope() const override { return rope_; }
  bool finds_best() const override { return true; }
  bool waits_for_hooks() const override { return true; }
  void Step(absl::Span<const StepSlice> slices, StepHook* hook) override;
  void ReadRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots, char* out) override;
  bool MostAlike(const SequenceRows& rows, int layer, absl::Span<AlikeTask> tasks) override;
  void MixRows(SequenceRows& rows, int layer, absl::Span<const MixTask> tasks) override;
  bool scans_indexes() const override { return true; }
  void ScanIndexes(absl::Span<IndexScan* const> scans) override;
  void WriteRow(SequenceRows& rows, int layer, int kv_head, int32_t slot, const char* row) override;
  void Repack(SequenceRows& rows, int layer, int kv_head) override;
  void Pack(SequenceRows& rows, KvPrecision precision, absl::Span<const PackTask> tasks) override;
  void MovePackedRow(SequenceRows& rows, int layer, int kv_head, int32_t from, int32_t to) override;
  void FillGroup(const RowGroup& group, const char* rows) override;
  void Probabilities(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                     absl::Span<const int32_t> visible, float* out) override;
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) override;

 private:
  // What the device is told of a step. Slices by rank: those of one token first.
  struct Plan {
    absl::Span<const StepSlice> slices;
    std::vector<int> by_rank;                   // slice
    std::vector<int32_t> first_token;           // by rank: row of its first token
    std::vector<std::vector<HeadPages>> heads;  // by layer: [ranks][kv_heads]
    std::vector<int32_t> slots;                 // [layers][kv_heads][tokens] slot of a token's row
    int singles = 0;
    int32_t tokens = 0;
    bool products = false;        // by the library, not MatVec
    int64_t host_query_rows = 0;  // of a layer, that the hook reads

    // On the device.
    const int32_t* token_ids = nullptr;
    StepTokens step;
    const int32_t* single_rows = nullptr;           // by rank
    const int32_t* slots_on_device = nullptr;       // as slots
    std::vector<const HeadPages*> heads_on_device;  // by layer
    const StepSlice& slice(int rank) const { return slices[by_rank[rank]]; }
  };
  // Attention sums that arrive with the end of the step: of a head's query heads, [group][slots].
  struct SumsOfHead {
    int rank, layer, kv_head;
    int32_t slots;
    size_t at;  // in sums_, and in its host copy
  };
  struct Use {
    const DeviceMatrix* matrix = nullptr;
    const float* bias = nullptr;
    float* out = nullptr;  // [count][matrix rows]
  };

  Plan MakePlan(absl::Span<const StepSlice> slices);
  // Tells the device what changed in a layer since the plan was made.
  void RefreshLayer(Plan& plan, int layer);
  void ApplyUpdates(const std::vector<UpdateEntries::Update>& updates);
  // For the device, with all but copies aside.
  void Wait();
  // Puts the rows of WriteRow on their way to the device, aside.
  void SendWrites();
  // Moves the rows of MovePackedRow and puts those of WriteRow into their slots: before anything else that reads or
  // moves rows.
  void FlushWrites();
  void CopyWhole(absl::Span<const CopyPages::Copy> copies, size_t bytes_each);
  // Packs groups of kGroupTokens rows into scratch memory: [groups][page bytes].
  char* PackGroupsOf(KvPrecision precision, absl::Span<const uint16_t* const> rows, int64_t value_offset);
  // MostAlike for the rows `first` to first + at_once - 1 of each task.
  void FindAlike(const SequenceRows& rows, int layer, absl::Span<AlikeTask> tasks, size_t first, size_t at_once);
  // ScanIndexes, of scans with so many bytes of scores and ranks. With mutex_ held.
  void ScanSome(absl::Span<IndexScan* const> scans, size_t scratch);
  // Moves the plain rows of a head to the first plain slots, by ascending position.
  void MoveToFront(const HeadRows& head);
  void RunLayer(Plan& plan, int layer, StepHook* hook);
  void Attention(Plan& plan, int layer);
  void AttendSingles(Plan& plan, int layer);
  // It leaves what the output projection multiplies, not floats.
  bool AttendedArePrepared(const Plan& plan, int layer) const;
  void AttendSlice(Plan& plan, int layer, int rank);
  void Logits(const Plan& plan);
  // The best of the first `rows` rows of logits_, `count` of each, on their way to the host.
  void FindBest(int32_t rows, int32_t count);
  // After the step: of the slices in the order in which Logits put them.
  void HandOutLogits(const Plan& plan) const;
  // Where a layer's queries go on the host, and what the hook sees of them.
  void FetchQueries(const Plan& plan, int layer, const StepHook& hook);
  // How many of a slice's last queries the hook reads.
  static int QueriesRead(const Plan& plan, int slice, const StepHook& hook);
  std::vector<SliceQueries> QueriesOf(const Plan& plan, int layer, const StepHook& hook) const;
  void CallHook(Plan& plan, int layer, StepHook* hook);
  // Attention sums of a step: room for all, of one head, and into the heads.
  void ReserveSums(const Plan& plan);
  float* TakeSums(int rank, int layer, int kv_head, int32_t slots);
  void AddColumnSums(const Plan& plan);
  void RememberFresh(const Plan& plan);
  // After a layer's rows are stored: sends some to the host, where they are wanted.
  void SendFresh(const Plan& plan, int layer);
  void LaunchScores(const ScoreJob* jobs, int count, int most_pages);

  // y = op(x) in the forms that the matrices of `uses` want, for products with them.
  DeviceActivations Prepare(PrepareRows::Args args, int32_t count, absl::Span<const Use> uses, bool products);
  void MatMul(absl::Span<const Use> uses, const DeviceActivations& x, int32_t count, bool products, bool add);
  void MatMulByVectors(absl::Span<const Use> uses, const DeviceActivations& x, int32_t count, bool add);
  void MatMulByLibrary(const Use& use, int32_t count, bool add);

  RowPlace PlaceOf(const HeadRows& head, int32_t slot) const {
    const SlotPage& page = head.pages()[slot / kPageSlots];
    return {.place = pages_->Place(page.precision, page.page),
            .row = static_cast<uint16_t>(page.half * kPageSlots + slot % kPageSlots),
            .precision = page.precision};
  }
  // The rows were computed in the last step: their copy on the host, else null. With mutex_ held.
  const char* FreshRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots);

  const std::unique_ptr<Device> device_;
  const std::shared_ptr<const Model> model_;
  const ModelConfig& config_;
  const Rope rope_;
  const KvLayout layout_;
  const int multiprocessors_;
  const std::unique_ptr<ThreadTeam> team_;
  const std::unique_ptr<DeviceWeights> weights_;
  const std::unique_ptr<DevicePages> pages_;
  PagePool pool_;

  // Host threads may read and write rows at the same time: held by who uses the device or the buffers below.
  Mutex mutex_;
  Uploads uploads_;
  DeviceBuffer x_, q_, q_half_, k_, v_, attended_, gate_, up_, logits_;
  DeviceBuffer form_floats_, form_halves_, form_values_, form_scales_, form_sums_;
  DeviceBuffer weights_as_halves_;
  DeviceBuffer part_out_, part_maximum_, part_sum_, log_sum_;
  DeviceBuffer births_;
  DeviceBuffer moved_, packed_, job_scores_;
  DeviceBuffer alike_keys_, alike_lengths_, alike_cosines_, alike_best_, host_cosines_, host_best_;
  IndexRoom index_room_;
  DeviceBuffer scan_scores_, scan_answer_, host_answer_, host_index_;
  DeviceBuffer sums_;
  DeviceBuffer best_[2], best_ids_[2], host_best_logits_, host_best_ids_;  // of parts, in turn
  DeviceBuffer host_queries_, host_logits_, host_sums_, host_rows_, host_scores_;
  std::vector<SumsOfHead> pending_sums_;
  size_t sums_used_ = 0, sums_room_ = 0;  // floats

  // The rows of the last step, [layers][kv_heads][tokens][row], for who stores them.
  struct Fresh {
    std::vector<const SequenceRows*> rows;  // by rank
    std::vector<int32_t> first_token, count;
    std::vector<int32_t> slots;  // as Plan
    int32_t tokens = 0;
    bool on_host = false;  // or on their way there, aside
    bool arrived = false;
  };
  Fresh fresh_;
  bool fresh_wanted_ = false;  // those of a step were read: the next one's are sent to the host beside its work
  bool in_step_ = false;       // or its hooks are called after it: they write none of its rows
  // Rows of WriteRow on their way: one copy and one launch for all that recall installs before a layer attends.
  struct Written {
    explicit Written(Device* device) : rows(device, true), on_device(device) {}
    DeviceBuffer rows, on_device;  // [kMostWritten][row_bytes]
    std::vector<RowPlace> places;
    std::unordered_map<int64_t, size_t> at;  // place: which of them
    size_t sent = 0;                         // of places
    bool busy = false;                       // the device may not be done with what was flushed
  };
  Written written_[2];  // taken in turn: one is filled while the other is still copied
  int writing_ = 0;
  // Packed rows that are to move, likewise; and where from and where to.
  std::vector<MovePackedRows::Move> packed_moves_;
  std::unordered_set<int64_t> moved_places_;
  DeviceBuffer fresh_rows_, host_fresh_rows_;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_CUDA_BACKEND_H_
