// Speed of a device (--device) on a model of Llama-3.1-8B's shape with random weights: prefill, and decode with the
// full cache and with a share of its rows resident, at several contexts and batches. What is evicted is chosen at
// random. With a share resident it measures again while after each step --recall_rows rows of each (layer, kv head) are
// written, as asynchronous recall does, and for how long that takes alone: by how much of it steps are not longer is
// hidden behind them.
//
//   device_speed [--device=cuda:0] [--contexts=8192,32768] [--batches=1,8] [--type=q4_k|q4_0|q8_0|bf16] [--layers=32]
//                [--steps=32] [--recall_rows=3] [--json=FILE]
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bench/device/synthetic_model.h"
#include "worker/backend/create_backend.h"
#include "worker/model/model.h"

ABSL_FLAG(std::string, device, "cuda:0", "cpu, cuda:N or emulated");
ABSL_FLAG(std::string, contexts, "8192", "tokens, a list");
ABSL_FLAG(std::string, batches, "1,8", "sequences that decode together, a list");
ABSL_FLAG(std::string, type, "q4_k", "of the weights: q4_k, q4_0, q8_0 or bf16");
ABSL_FLAG(int, layers, 32, "of the model");
ABSL_FLAG(int, width, 4096, "of the model; other sizes follow");
ABSL_FLAG(int, steps, 32, "decoding steps of a measurement");
ABSL_FLAG(int, chunk, 512, "prompt tokens of a step");
ABSL_FLAG(int, recall_rows, 3, "rows that are recalled into each (layer, kv head) for each step: 5 % of 64");
ABSL_FLAG(double, kv_gib, 40, "memory of the slot pages");
ABSL_FLAG(std::string, json, "", "file for the results");

namespace tidepool {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

std::vector<int> Numbers(const std::string& list) {
  std::vector<int> numbers;
  for (absl::string_view part : absl::StrSplit(list, ',')) {
    int number = 0;
    if (absl::SimpleAtoi(part, &number)) numbers.push_back(number);
  }
  return numbers;
}

TensorType TypeFlag() {
  const std::string name = absl::GetFlag(FLAGS_type);
  return name == "q4_0"   ? TensorType::kQ4_0
         : name == "q8_0" ? TensorType::kQ8_0
         : name == "bf16" ? TensorType::kBF16
                          : TensorType::kQ4_K;
}

// After a step writes rows into slots of every head, as asynchronous recall does.
class RecallHook : public StepHook {
 public:
  RecallHook(Backend* backend, std::vector<SequenceRows*> rows)
      : backend_(backend), rows_(std::move(rows)), row_(backend->layout().row_bytes(), '\x11') {}
  void BeforeAttention(int, absl::Span<const SliceQueries>) override { ++step_; }
  void BeforeHead(int layer, int slice, int kv_head) override { Write(layer, slice, kv_head); }
  bool Busy(int, int) const override { return true; }
  bool ActsInStep() const override { return false; }
  int QueriesRead(int) const override { return 1; }

  void Write(int layer, int slice, int kv_head) {
    const HeadRows& head = rows_[slice]->head(layer, kv_head);
    for (int i = 0; i < absl::GetFlag(FLAGS_recall_rows); ++i) {
      const int32_t at = (step_ * 31 + i * 97) % std::max(1, head.rows() - 1);
      backend_->WriteRow(*rows_[slice], layer, kv_head, head.order()[at], row_.data());
    }
  }
  // Seconds of all rows of a step, until they are in their slots.
  double Alone() {
    const auto start = Clock::now();
    ++step_;
    for (size_t slice = 0; slice < rows_.size(); ++slice) {
      for (int layer = 0; layer < backend_->layout().layers; ++layer) {
        for (int kv_head = 0; kv_head < backend_->layout().kv_heads; ++kv_head) {
          Write(layer, static_cast<int>(slice), kv_head);
        }
      }
    }
    std::string read(row_.size(), '\0');
    backend_->ReadRows(*rows_[0], 0, 0, {rows_[0]->head(0, 0).order()[0]}, read.data());
    return Seconds(start);
  }

 private:
  Backend* const backend_;
  const std::vector<SequenceRows*> rows_;
  const std::string row_;
  int32_t step_ = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class DeviceBench {
 public:
  DeviceBench(std::shared_ptr<const Model> model, std::unique_ptr<Backend> backend)
      : model_(std::move(model)), backend_(std::move(backend)), json_(absl::GetFlag(FLAGS_json)) {}

  void Run(int context, int batch) {
    const ModelConfig& config = model_->config();
    const int64_t pages_needed = int64_t{batch} * config.layers * config.kv_heads * (context / kPageSlots + 8);
    if (pages_needed > backend_->pool().total()) {
      std::printf("%7d %5d   does not fit\n", context, batch);
      return;
    }
    rows_.clear();
    positions_.assign(batch, 0);
    for (int i = 0; i < batch; ++i) {
      rows_.push_back(std::make_unique<SequenceRows>(&backend_->pool(), config.layers, config.kv_heads));
    }
    const auto start = Clock::now();
    for (int i = 0; i < batch; ++i) Prefill(i, context);
    const double prefill = Seconds(start);
    std::printf("%7d %5d   prefill %8.2f s %10.0f tokens/s\n", context, batch, prefill, batch * context / prefill);
    Measure(context, batch, 1.0);
    for (double share : {0.2, 0.1}) {
      Keep(static_cast<int>(context * share));
      Measure(context, batch, share);
    }
    rows_.clear();
  }

 private:
  void Prefill(int sequence, int tokens) {
    const int chunk = absl::GetFlag(FLAGS_chunk);
    for (int done = 0; done < tokens; done += chunk) Feed({sequence}, std::min(chunk, tokens - done), nullptr);
  }

  void Feed(const std::vector<int>& sequences, int count, std::vector<float>* logits, StepHook* hook = nullptr) {
    const auto vocabulary = static_cast<size_t>(model_->config().vocabulary);
    std::vector<std::vector<int32_t>> tokens(sequences.size());
    std::vector<StepSlice> slices;
    if (logits != nullptr) logits->resize(sequences.size() * vocabulary);
    for (size_t i = 0; i < sequences.size(); ++i) {
      for (int t = 0; t < count; ++t) tokens[i].push_back(static_cast<int32_t>(random_() % vocabulary));
      SequenceRows& rows = *rows_[sequences[i]];
      rows.Extend(positions_[sequences[i]], count);
      slices.push_back({&rows, tokens[i], positions_[sequences[i]], logits != nullptr ? 1 : 0,
                        logits != nullptr ? logits->data() + i * vocabulary : nullptr});
      positions_[sequences[i]] += count;
    }
    backend_->Step(slices, hook);
  }

  // Keeps that many rows of each head, at random.
  void Keep(int count) {
    for (std::unique_ptr<SequenceRows>& rows : rows_) {
      for (int layer = 0; layer < rows->layers(); ++layer) {
        for (int kv_head = 0; kv_head < rows->kv_heads(); ++kv_head) {
          HeadRows& head = rows->head(layer, kv_head);
          std::vector<int32_t> slots(head.order().begin(), head.order().end());
          std::shuffle(slots.begin(), slots.end() - 1, random_);
          // From the last on, so that each removal is short.
          const auto gone = std::max<int64_t>(0, static_cast<int64_t>(slots.size()) - 1 - count);
          std::sort(slots.begin(), slots.begin() + gone, std::greater<int32_t>());
          for (int64_t i = 0; i < gone; ++i) head.Remove(slots[i]);
          backend_->Repack(*rows, layer, kv_head);
        }
      }
    }
  }

  double StepSeconds(const std::vector<int>& sequences, std::vector<float>* logits, StepHook* hook) {
    for (int i = 0; i < 3; ++i) Feed(sequences, 1, logits, hook);
    std::vector<double> times;
    for (int i = 0; i < absl::GetFlag(FLAGS_steps); ++i) {
      const auto start = Clock::now();
      Feed(sequences, 1, logits, hook);
      times.push_back(Seconds(start));
    }
    return Median(times);
  }

  void Measure(int context, int batch, double share) {
    std::vector<int> all(batch);
    for (int i = 0; i < batch; ++i) all[i] = i;
    std::vector<float> logits;
    const double median = StepSeconds(all, &logits, nullptr);
    std::vector<SequenceRows*> rows_of;
    for (const auto& rows : rows_) rows_of.push_back(rows.get());
    RecallHook recall(backend_.get(), rows_of);
    double with_recall = 0, recall_alone = 0;
    if (share < 1 && absl::GetFlag(FLAGS_recall_rows) > 0) {
      std::vector<double> alone;
      for (int i = 0; i < absl::GetFlag(FLAGS_steps); ++i) alone.push_back(recall.Alone());
      recall_alone = Median(alone);
      with_recall = StepSeconds(all, &logits, &recall);
    }
    const double recalled = recall_alone == 0 ? 0.0
                                              : static_cast<double>(absl::GetFlag(FLAGS_recall_rows)) * batch *
                                                    backend_->layout().layers * backend_->layout().kv_heads *
                                                    static_cast<double>(backend_->layout().row_bytes());
    const bool finite = std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
    double kv_bytes = 0;
    for (const auto& rows : rows_) kv_bytes += static_cast<double>(rows->total_rows() * backend_->layout().row_bytes());
    // The embedding is looked up, not read through.
    const double weight_bytes =
        static_cast<double>(model_->tensor_bytes()) - static_cast<double>(model_->token_embedding().bytes());
    const double rate = (weight_bytes + kv_bytes) / median;
    std::printf("%7d %5d   %3.0f %% resident  %7.3f ms a step  %8.1f tokens/s  KV %7.3f GB  %6.0f GB/s%s\n", context,
                batch, share * 100, median * 1e3, batch / median, kv_bytes / 1e9, rate / 1e9,
                finite ? "" : "  NOT FINITE");
    if (recall_alone > 0) {
      std::printf("                with recall  %7.3f ms a step, of %.2f MB, alone %.3f ms\n", with_recall * 1e3,
                  recalled / 1e6, recall_alone * 1e3);
    }
    std::fflush(stdout);
    if (json_.is_open()) {
      json_ << absl::StrCat("{\"context\": ", context, ", \"batch\": ", batch, ", \"resident\": ", share,
                            ", \"step_ms\": ", median * 1e3, ", \"tokens_per_s\": ", batch / median,
                            ", \"kv_bytes\": ", kv_bytes, ", \"weight_bytes\": ", weight_bytes,
                            ", \"recall_step_ms\": ", with_recall * 1e3, ", \"recall_alone_ms\": ", recall_alone * 1e3,
                            ", \"recalled_bytes\": ", recalled, ", \"finite\": ", finite ? "true" : "false", "}\n")
            << std::flush;
    }
  }

  const std::shared_ptr<const Model> model_;
  const std::unique_ptr<Backend> backend_;
  std::vector<std::unique_ptr<SequenceRows>> rows_;
  std::vector<int32_t> positions_;
  std::mt19937 random_{1};
  std::ofstream json_;
};

int Main() {
  SyntheticShape shape;
  shape.type = TypeFlag();
  shape.layers = absl::GetFlag(FLAGS_layers);
  if (const int width = absl::GetFlag(FLAGS_width); width != 4096) {
    shape.width = width;
    shape.heads = width / 128;
    shape.kv_heads = std::max(1, shape.heads / 4);
    shape.ffn_width = width * 7 / 2;
    shape.vocabulary = 4096;
  }
  const std::string path = "/tmp/device_speed_" + std::to_string(getpid()) + ".gguf";
  auto start = Clock::now();
  if (!WriteSyntheticModel(shape, path)) {
    std::fprintf(stderr, "%s cannot be written\n", path.c_str());
    return 1;
  }
  std::printf("model written in %.1f s\n", Seconds(start));
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(path);
  unlink(path.c_str());  // its mapping lives on
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", std::string(model.status().message()).c_str());
    return 1;
  }
  BackendOptions options;
  options.threads = 8;
  options.kv_bytes = static_cast<size_t>(absl::GetFlag(FLAGS_kv_gib) * (size_t{1} << 30));
  start = Clock::now();
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(absl::GetFlag(FLAGS_device), *model, options);
  if (!backend.ok()) {
    std::fprintf(stderr, "%s\n", std::string(backend.status().message()).c_str());
    return 1;
  }
  std::printf("loaded in %.1f s, %.2f GB of weights\n", Seconds(start),
              static_cast<double>((*model)->tensor_bytes()) / 1e9);
  std::printf("context batch\n");
  DeviceBench bench(*model, *std::move(backend));
  for (int context : Numbers(absl::GetFlag(FLAGS_contexts))) {
    for (int batch : Numbers(absl::GetFlag(FLAGS_batches))) bench.Run(context, batch);
  }
  return 0;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return tidepool::Main();
}
