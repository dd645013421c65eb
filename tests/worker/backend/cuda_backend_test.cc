// The `cuda` backend against the `cpu` one, step by step. On a machine without a GPU its kernels run in the emulator;
// TIDEPOOL_TEST_DEVICE=cuda:0 names a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>

#include "tests/support/paths.h"
#include "worker/backend/create_backend.h"
#include "worker/backend/cuda/create.h"
#include "worker/backend/cuda/device_memory.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cuda/host_device.h"
#include "worker/kv/row_merger.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

std::string DeviceUnderTest() {
  const char* name = std::getenv("TIDEPOOL_TEST_DEVICE");
  return name != nullptr ? name : "emulated";
}

// Remembers the queries of every layer, by slice.
class QueryLog : public StepHook {
 public:
  QueryLog(bool acts, int heads, int head_dim, std::vector<int> tokens, int last)
      : acts_(acts), heads_(heads), head_dim_(head_dim), tokens_(std::move(tokens)), last_(last) {}
  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      for (int t = std::max(0, tokens_[i] - last_); t < tokens_[i]; ++t) {
        for (int h = 0; h < heads_; ++h) {
          const float* query = queries[i].Head(t, h, head_dim_);
          values.insert(values.end(), query, query + head_dim_);
        }
      }
    }
    layers.push_back(layer);
  }
  bool ActsInStep() const override { return acts_; }
  int QueriesRead(int) const override { return last_; }

  std::vector<float> values;
  std::vector<int> layers;

 private:
  const bool acts_;
  const int heads_, head_dim_;
  const std::vector<int> tokens_;
  const int last_;
};

void ExpectNear(const std::vector<float>& got, const std::vector<float>& expected, float tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], tolerance) << i;
}

struct Case {
  std::string model;
  bool exact;  // float32 weights
  float
      tolerance;  // of a logit; those of quantised models hold cpu's int8 activations, where cuda has halves in prompts
};

std::vector<uint16_t> RandomHalves(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> halves(count);
  for (uint16_t& half : halves) {
    const float value = normal(random);
    FloatToHalf(&value, 1, &half);
  }
  return halves;
}

class CudaBackendTest : public testing::TestWithParam<Case> {
 protected:
  // The same steps on one of the two.
  class Machine {
   public:
    Machine(const std::string& device, const Case& of)
        : model_(*Model::Load(test::DataPath("tiny_models/" + of.model))) {
      BackendOptions options;
      options.kv_bytes = size_t{16} << 20;
      options.f32_weights = of.exact;
      auto backend = CreateBackend(device, model_, options);
      if (!backend.ok()) throw std::runtime_error(std::string(backend.status().message()));
      backend_ = *std::move(backend);
      for (int i = 0; i < 2; ++i) {
        rows_.push_back(std::make_unique<SequenceRows>(&backend_->pool(), config().layers, config().kv_heads));
      }
    }
    const ModelConfig& config() const { return model_->config(); }
    Backend& backend() { return *backend_; }
    SequenceRows& rows(int sequence) { return *rows_[sequence]; }

    // Feeds counts[i] tokens to sequence i; returns the logits of all.
    std::vector<float> Step(const std::vector<int>& counts, StepHook* hook = nullptr) {
      std::vector<StepSlice> slices;
      std::vector<std::vector<int32_t>> tokens(counts.size());
      const int total = counts[0] + (counts.size() > 1 ? counts[1] : 0);
      std::vector<float> logits(static_cast<size_t>(total) * config().vocabulary);
      float* to = logits.data();
      for (size_t i = 0; i < counts.size(); ++i) {
        if (counts[i] == 0) continue;
        for (int t = 0; t < counts[i]; ++t) tokens[i].push_back(static_cast<int32_t>(random_() % config().vocabulary));
        rows_[i]->Extend(positions_[i], counts[i]);
        slices.push_back({rows_[i].get(), tokens[i], positions_[i], counts[i], to});
        slices.back().decodes = decodes && counts[i] == 1;
        to += static_cast<size_t>(counts[i]) * config().vocabulary;
        positions_[i] += counts[i];
      }
      backend_->Step(slices, hook);
      return logits;
    }
    QueryLog Log(bool acts, std::vector<int> tokens, int last) const {
      return QueryLog(acts, config().heads, config().head_dim, std::move(tokens), last);
    }
    bool decodes = false;  // a step of one token is one of decoding
    std::vector<float> Row(int sequence, int layer, int kv_head, int32_t slot) {
      std::vector<uint16_t> row(2 * config().head_dim);
      backend_->ReadRows(rows(sequence), layer, kv_head, {slot}, reinterpret_cast<char*>(row.data()));
      std::vector<float> values(row.size());
      HalfToFloat(row.data(), static_cast<int64_t>(row.size()), values.data());
      return values;
    }

   private:
    const std::shared_ptr<const Model> model_;
    std::unique_ptr<Backend> backend_;
    std::vector<std::unique_ptr<SequenceRows>> rows_;
    std::mt19937 random_{1};
    int32_t positions_[2] = {0, 0};
  };

  // Of a query over what is resident; and the same bytes.
  void ExpectTheSameAttention(Machine& cpu, Machine& cuda) {
    const ModelConfig& config = cpu.config();
    for (int layer = 0; layer < config.layers; ++layer) {
      for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
        const HeadRows& head = cpu.rows(0).head(layer, kv_head);
        EXPECT_EQ(cuda.rows(0).head(layer, kv_head).bytes(cuda.backend().pool()), head.bytes(cpu.backend().pool()));
        const std::vector<float> query(config.head_dim, 0.5f);
        std::vector<float> expected(head.rows()), got(head.rows());
        cpu.backend().Probabilities(cpu.rows(0), layer, kv_head, {query.data()}, {head.rows()}, expected.data());
        cuda.backend().Probabilities(cuda.rows(0), layer, kv_head, {query.data()}, {head.rows()}, got.data());
        ExpectNear(got, expected, GetParam().tolerance);
      }
    }
  }

  Machine cpu_{"cpu", GetParam()};
  Machine cuda_{DeviceUnderTest(), GetParam()};
};

TEST_P(CudaBackendTest, StepsGiveTheSameLogits) {
  for (const std::vector<int>& counts :
       {std::vector<int>{37}, {1, 9}, {1, 1}, {5, 1}, {40, 3}, {1, 1}, {0, 1}, {2, 2}}) {
    const std::vector<float> expected = cpu_.Step(counts), got = cuda_.Step(counts);
    ExpectNear(got, expected, GetParam().tolerance);
  }
}

TEST_P(CudaBackendTest, HooksSeeTheSameQueries) {
  for (bool acts : {false, true}) {
    for (int last : {1, 4, 100}) {
      for (const std::vector<int>& counts : {std::vector<int>{7, 1}, {1, 3}, {1, 1}}) {
        QueryLog on_cpu = cpu_.Log(acts, counts, last), on_cuda = cuda_.Log(acts, counts, last);
        cpu_.Step(counts, &on_cpu);
        cuda_.Step(counts, &on_cuda);
        ASSERT_EQ(on_cuda.layers, on_cpu.layers);
        ExpectNear(on_cuda.values, on_cpu.values, GetParam().tolerance);
      }
    }
  }
}

TEST_P(CudaBackendTest, EvictedRowsAreNotAttendedTo) {
  for (Machine* machine : {&cpu_, &cuda_}) machine->Step({50});
  for (int round = 0; round < 3; ++round) {
    for (Machine* machine : {&cpu_, &cuda_}) {
      std::mt19937 random(round);
      for (int layer = 0; layer < machine->config().layers; ++layer) {
        for (int kv_head = 0; kv_head < machine->config().kv_heads; ++kv_head) {
          HeadRows& head = machine->rows(0).head(layer, kv_head);
          const std::vector<int32_t> slots(head.order().begin(), head.order().end());
          for (int32_t slot : slots) {
            if (random() % 3 == 0 && head.rows() > 1) head.Remove(slot);
          }
          if (random() % 2 == 0) machine->backend().Repack(machine->rows(0), layer, kv_head);
        }
      }
    }
    for (int count : {1, 1, 6}) ExpectNear(cuda_.Step({count}), cpu_.Step({count}), GetParam().tolerance);
  }
}

TEST_P(CudaBackendTest, RowsAreReadAndWritten) {
  for (Machine* machine : {&cpu_, &cuda_}) machine->Step({20});
  const int layer = cpu_.config().layers - 1, kv_head = cpu_.config().kv_heads - 1;
  for (int32_t slot : {0, 7, 19}) {
    ExpectNear(cuda_.Row(0, layer, kv_head, slot), cpu_.Row(0, layer, kv_head, slot), GetParam().tolerance);
  }
  std::vector<uint16_t> row(2 * cpu_.config().head_dim);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<uint16_t>(0x3000 + i);
  for (Machine* machine : {&cpu_, &cuda_}) {
    machine->rows(0).head(layer, kv_head).Remove(7);
    const int32_t slot = machine->rows(0).head(layer, kv_head).Add(machine->rows(0).pool(), 7, RowKind::kRecalled);
    const std::vector<char> before(row.size() * sizeof row[0], 1);  // the last one counts
    machine->backend().WriteRow(machine->rows(0), layer, kv_head, slot, before.data());
    machine->backend().WriteRow(machine->rows(0), layer, kv_head, slot, reinterpret_cast<const char*>(row.data()));
    std::vector<float> written(row.size());
    HalfToFloat(row.data(), static_cast<int64_t>(row.size()), written.data());
    EXPECT_EQ(machine->Row(0, layer, kv_head, slot), written);
    // Written, and only then moved.
    machine->backend().WriteRow(machine->rows(0), layer, kv_head, slot, before.data());
    machine->backend().WriteRow(machine->rows(0), layer, kv_head, slot, reinterpret_cast<const char*>(row.data()));
    machine->rows(0).head(layer, kv_head).Remove(3);
    machine->backend().Repack(machine->rows(0), layer, kv_head);
    EXPECT_EQ(machine->Row(0, layer, kv_head, 6), written);
  }
  ExpectNear(cuda_.Step({1}), cpu_.Step({1}), GetParam().tolerance);
}

TEST_P(CudaBackendTest, PoliciesSeeTheSameAttention) {
  for (Machine* machine : {&cpu_, &cuda_}) {
    for (int layer = 0; layer < machine->config().layers; ++layer) {
      for (int kv_head = 0; kv_head < machine->config().kv_heads; ++kv_head) {
        HeadRows& head = machine->rows(0).head(layer, kv_head);
        head.KeepColumnSums(machine->config().heads / machine->config().kv_heads, /*steps=*/layer != 0);
        if (layer == 0 && kv_head == 0) head.KeepStepSums();
      }
    }
    machine->decodes = true;
    for (int count : {30, 1, 1, 4}) machine->Step({count, 1});
  }
  const ModelConfig& config = cpu_.config();
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  for (int layer = 0; layer < config.layers; ++layer) {
    for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
      const HeadRows& on_cpu = cpu_.rows(0).head(layer, kv_head);
      const HeadRows& on_cuda = cuda_.rows(0).head(layer, kv_head);
      for (size_t g = 0; g < on_cpu.column_sums().size(); ++g) {
        ExpectNear(on_cuda.column_sums()[g], on_cpu.column_sums()[g], GetParam().tolerance);
      }
      if (on_cpu.keeps_step_sums()) ExpectNear(on_cuda.step_sums(), on_cpu.step_sums(), GetParam().tolerance);
      std::vector<std::vector<float>> queries(5, std::vector<float>(config.head_dim));
      std::vector<const float*> pointers;
      std::vector<int32_t> visible;
      for (std::vector<float>& query : queries) {
        for (float& x : query) x = normal(random);
        pointers.push_back(query.data());
        visible.push_back(on_cpu.rows() - static_cast<int32_t>(pointers.size()) + 1);
      }
      std::vector<float> expected(queries.size() * on_cpu.rows()), got(expected.size());
      cpu_.backend().Probabilities(cpu_.rows(0), layer, kv_head, pointers, visible, expected.data());
      cuda_.backend().Probabilities(cuda_.rows(0), layer, kv_head, pointers, visible, got.data());
      ExpectNear(got, expected, GetParam().tolerance);
    }
  }
}

TEST_P(CudaBackendTest, MergesRowsAsTheCpu) {
  const ModelConfig& config = cpu_.config();
  const size_t row = 2 * static_cast<size_t>(config.head_dim);
  const std::vector<uint16_t> rows = RandomHalves(60 * row, 8);
  for (Machine* machine : {&cpu_, &cuda_}) machine->Step({60});
  for (const size_t evicted : {1, 9}) {
    CompressionSpec spec;
    spec.fate = Fate::kMerge;
    std::vector<float> kept_rows[2];
    int64_t merged[2] = {0, 0};
    for (Machine* machine : {&cpu_, &cuda_}) {
      SequenceRows& of = machine->rows(0);
      RowMerger merger(machine->backend().layout(), spec);
      std::vector<std::vector<int32_t>> kept(config.kv_heads), gone(config.kv_heads);
      for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
        HeadRows& head = of.head(0, kv_head);
        for (const int32_t slot : head.order()) {
          const int32_t position = head.position(slot);
          machine->backend().WriteRow(of, 0, kv_head, slot,
                                      reinterpret_cast<const char*>(rows.data() + position * row));
          const bool goes = position % 5 == 2 && gone[kv_head].size() < evicted;
          (goes ? gone : kept)[kv_head].push_back(slot);
        }
      }
      merged[machine == &cuda_] = merger.Merge(machine->backend(), of, 0, kept, gone);
      for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
        for (const int32_t slot : kept[kv_head]) {
          const std::vector<float> values = machine->Row(0, 0, kv_head, slot);
          kept_rows[machine == &cuda_].insert(kept_rows[machine == &cuda_].end(), values.begin(), values.end());
        }
        for (const int32_t slot : gone[kv_head]) of.head(0, kv_head).Remove(slot);
        machine->backend().Repack(of, 0, kv_head);
      }
    }
    EXPECT_EQ(merged[1], merged[0]);
    EXPECT_GT(merged[1], 0);
    ExpectNear(kept_rows[1], kept_rows[0], 4e-3f);
  }
}

TEST_P(CudaBackendTest, PackedRowsAreTheCpus) {
  const ModelConfig& config = cpu_.config();
  const size_t row = 2 * static_cast<size_t>(config.head_dim);
  const std::vector<uint16_t> rows = RandomHalves(120 * row, 3);
  auto bytes = [&](int position) { return reinterpret_cast<const char*>(rows.data() + position * row); };
  for (const KvPrecision precision : {KvPrecision::kInt8, KvPrecision::kKivi4, KvPrecision::kKivi2}) {
    Machine cpu("cpu", GetParam()), cuda(DeviceUnderTest(), GetParam());
    std::vector<std::vector<uint16_t>> read[2];
    for (Machine* machine : {&cpu, &cuda}) {
      machine->Step({100});
      SequenceRows& of = machine->rows(0);
      for (int layer = 0; layer < config.layers; ++layer) {
        std::vector<Backend::PackTask> tasks;
        for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
          HeadRows& head = of.head(layer, kv_head);
          std::vector<int32_t> plain;
          for (const int32_t slot : head.order()) {
            if (head.is_packed(slot)) continue;
            machine->backend().WriteRow(of, layer, kv_head, slot, bytes(head.position(slot)));
            plain.push_back(slot);
          }
          plain.resize(kGroupTokens);
          tasks.push_back({layer, kv_head, plain});
        }
        machine->backend().Pack(of, precision, tasks);
        for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
          HeadRows& head = of.head(layer, kv_head);
          head.Remove(head.groups().back().first_slot + 3);
          if (precision != KvPrecision::kInt8) {
            // A founder's row, packed again from the exact rows.
            std::vector<char> founders;
            for (const int32_t position : head.groups().back().founders) {
              founders.insert(founders.end(), bytes(position), bytes(position) + row * sizeof(uint16_t));
            }
            machine->backend().FillGroup(head.groups().back(), founders.data());
          } else {
            const int32_t first = head.groups().back().first_slot;
            machine->backend().MovePackedRow(of, layer, kv_head, first + 20, first + 3);
            machine->backend().MovePackedRow(of, layer, kv_head, first + 9, first + 20);
          }
          const std::vector<int32_t> slots(head.order().begin(), head.order().end());
          std::vector<uint16_t>& to = read[machine == &cuda].emplace_back(slots.size() * row);
          machine->backend().ReadRows(of, layer, kv_head, slots, reinterpret_cast<char*>(to.data()));
        }
      }
    }
    EXPECT_EQ(read[0], read[1]) << "precision " << static_cast<int>(precision);
    for (int count : {1, 6}) ExpectNear(cuda.Step({count}), cpu.Step({count}), GetParam().tolerance);
    ExpectTheSameAttention(cpu, cuda);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaBackendTest,
                         testing::Values(Case{"llama_f32.gguf", true, 2e-2f}, Case{"qwen2_f32.gguf", true, 2e-2f},
                                         Case{"qwen3_yarn_f16.gguf", false, 5e-2f},
                                         Case{"llama_q8_0.gguf", false, 0.7f}),
                         [](const auto& test) { return test.param.model.substr(0, test.param.model.find('.')); });

// Rows that are read after a step and rows that are written before one, as the block log and recall do.
std::vector<float> ReadsAndWrites(Backend& backend, const ModelConfig& config) {
  const size_t row = 2 * static_cast<size_t>(config.head_dim);
  SequenceRows rows(&backend.pool(), config.layers, config.kv_heads);
  std::vector<float> seen;
  std::mt19937 random(2);
  int32_t position = 0;
  for (const int count : {80, 1, 1, 70, 1}) {
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % config.vocabulary);
    std::vector<float> logits(config.vocabulary);
    rows.Extend(position, count);
    const StepSlice slice{&rows, tokens, position, 1, logits.data()};
    backend.Step({slice}, nullptr);
    seen.insert(seen.end(), logits.begin(), logits.end());
    position += count;
    for (int layer = 0; layer < config.layers; ++layer) {
      for (int kv_head = 0; kv_head < config.kv_heads; ++kv_head) {
        HeadRows& head = rows.head(layer, kv_head);
        const std::vector<int32_t> slots(head.order().end() - count, head.order().end());
        std::vector<uint16_t> read(slots.size() * row), written(row);
        backend.ReadRows(rows, layer, kv_head, slots, reinterpret_cast<char*>(read.data()));
        for (const uint16_t x : read) seen.push_back(x);
        for (uint16_t& x : written) x = static_cast<uint16_t>(random() % 0x3c00);
        backend.WriteRow(rows, layer, kv_head, head.order()[random() % 40],
                         reinterpret_cast<const char*>(written.data()));
      }
    }
  }
  return seen;
}

TEST(CudaBackendCopiesTest, ResultsDoNotDependOnWhenCopiesCome) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  std::vector<float> first;
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    BackendOptions options;
    options.kv_bytes = size_t{16} << 20;
    const auto backend = *cuda::CreateOn(cuda::MakeHostDevice(2, seed), model, options);
    const std::vector<float> seen = ReadsAndWrites(*backend, model->config());
    if (seed == 1) first = seen;
    EXPECT_EQ(seen, first) << "seed " << seed;
  }
}

// As many as the largest prompt chunk has: they once wrapped around, over what the step had yet to read.
TEST(UploadsTest, AllOfAStepStayWhereTheyWerePut) {
  const std::unique_ptr<cuda::Device> device = cuda::MakeHostDevice(1);
  cuda::Uploads uploads(device.get());
  const std::vector<int32_t> before(1000, -1);
  uploads.Upload(absl::MakeConstSpan(before));
  device->Synchronize();
  uploads.Hold();
  std::vector<const int32_t*> places;
  for (int32_t i = 0; i < 40; ++i) {
    const std::vector<int32_t> values(size_t{100'000} + 7 * i, i);
    places.push_back(uploads.Upload(absl::MakeConstSpan(values)));
  }
  device->Synchronize();
  for (int32_t i = 0; i < 40; ++i) {
    ASSERT_EQ(places[i][0], i);
    ASSERT_EQ(places[i][99'999 + 7 * i], i);
  }
  uploads.Release();
  for (int32_t i = 0; i < 2000; ++i) {  // else what is done with makes room
    const int32_t* place = uploads.Upload(absl::MakeConstSpan(before));
    device->Synchronize();
    ASSERT_EQ(place[999], -1);
  }
}

TEST(CreateBackendTest, PagesTakeAShareOfWhatIsFree) {
  const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  BackendOptions options;
  options.device_memory = 0.25;
  const auto backend = CreateBackend("emulated", model, options);
  ASSERT_TRUE(backend.ok()) << backend.status();
  PagePool& pool = (*backend)->pool();
  const size_t free = cuda::MakeHostDevice(1)->facts().free_bytes;
  EXPECT_EQ(pool.total(), static_cast<int32_t>(free / 4 / (kPageSlots * (*backend)->layout().row_bytes())));
  for (const auto& [device, share] : {std::pair{"cpu", 0.5}, {"emulated", 0.96}, {"emulated", std::nan("")}}) {
    options.device_memory = share;
    const absl::Status status = CreateBackend(device, model, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << device << " " << share;
    EXPECT_NE(status.message().find("device_memory"), std::string::npos) << status;
  }
}

TEST(CreateBackendTest, NamesADeviceThatIsNone) {
  const auto model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  for (const char* device : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"}) {
    const auto backend = CreateBackend(device, model, {});
    ASSERT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument) << device;
    EXPECT_NE(backend.status().message().find("device"), std::string::npos);
  }
}

}  // namespace
}  // namespace tidepool
