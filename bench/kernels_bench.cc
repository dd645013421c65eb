// Speed of the matrix products against two bounds: at batch 1 the bytes of weights read per second, at batch 64 the
// multiply-adds per second. Matrices of the small real model's shapes; those of one benchmark together exceed the
// caches, as a model's layers do. Each product is compared with the baseline's bits first.
//
// Run on a quiet machine: build/release/bin/kernels_bench --benchmark_repetitions=3
// Beside oneDNN (libdnnl-dev): cmake --preset release -DTIDEPOOL_ONEDNN=ON, then --benchmark_filter=x576
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#ifdef TIDEPOOL_ONEDNN
#include "bench/onednn_product.h"
#endif
#include "worker/kernels/cpu/huge_memory.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/matmul_dispatch.h"

namespace tidepool {
namespace {

constexpr size_t kWeightsBytes = size_t{96} << 20;  // what a token reads of the model

struct Shape {
  TensorType type;
  int64_t rows, columns;
};

// Random bytes, with every block's float16 fields set to 1/64.
std::vector<uint8_t> RandomWeights(const TensorView& view) {
  std::mt19937_64 random(1);
  std::vector<uint8_t> bytes(view.bytes());
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const uint16_t half = 0x2400;
  const int halves = view.type == TensorType::kQ4_1 ? 2 : 1;
  for (size_t at = 0; at < bytes.size(); at += BlockBytes(view.type)) {
    for (int i = 0; i < halves; ++i) std::memcpy(&bytes[at + 2 * i], &half, sizeof half);
  }
  return bytes;
}

int Threads() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

bool AgreesWithBaseline(const PackedMatrix& matrix, const Activations& x, int64_t count, ThreadTeam& team) {
  std::vector<float> out(count * matrix.rows()), expected(out.size());
  const MatMulTask task[] = {{&matrix, nullptr, out.data(), matrix.rows()}};
  const MatMulTask baseline[] = {{&matrix, nullptr, expected.data(), matrix.rows()}};
  MatMul(task, x, team);
  MatMulWith(MatMulKernelsOf(Isa::kBaseline), baseline, x, team);
  const float largest = *std::max_element(expected.begin(), expected.end());
  for (size_t i = 0; i < out.size(); ++i) {  // the baseline rounds each product before it is added
    if (!(std::abs(out[i] - expected[i]) <= 1e-5f * largest)) return false;
  }
  return true;
}

void Product(benchmark::State& state, Shape shape, int64_t count) {
  ThreadTeam team(Threads());
  TensorView view = {.name = "bench", .type = shape.type, .rows = shape.rows, .columns = shape.columns};
  const std::vector<uint8_t> bytes = RandomWeights(view);
  view.data = bytes.data();
  HugeMemory memory;
  std::vector<PackedMatrix> matrices;
  const size_t copies = std::max<size_t>(1, kWeightsBytes / view.bytes());
  for (size_t i = 0; i < copies; ++i) matrices.push_back(PackedMatrix::Pack(view, /*as_f32=*/false, team, memory));
  std::vector<float> x(count * shape.columns), out(count * shape.rows);
  std::mt19937 random(2);
  for (float& v : x) v = std::normal_distribution<float>()(random);
  Activations activations;
  activations.Set(x.data(), count, shape.columns, /*quantized=*/true, team);
  if (!AgreesWithBaseline(matrices[0], activations, count, team)) {
    state.SkipWithError("differs from the baseline");
    return;
  }
  size_t next = 0;
  for (auto _ : state) {
    const MatMulTask task[] = {{&matrices[next], nullptr, out.data(), shape.rows}};
    MatMul(task, activations, team);
    next = (next + 1) % matrices.size();
  }
  const double products = static_cast<double>(state.iterations());
  state.SetLabel(IsaName(ActiveIsa()));
  state.counters["weights_B/s"] =
      benchmark::Counter(products * static_cast<double>(matrices[0].bytes()), benchmark::Counter::kIsRate);
  state.counters["MAC/s"] = benchmark::Counter(products * static_cast<double>(count * shape.rows * shape.columns),
                                               benchmark::Counter::kIsRate);
}

#ifdef TIDEPOOL_ONEDNN
void OneDnn(benchmark::State& state, OneDnnProduct::Type type, Shape shape, int64_t count) {
  OneDnnProduct product(type, shape.rows, shape.columns, count, kWeightsBytes);
  for (auto _ : state) product.Run();
  state.SetLabel(product.implementation());
  state.counters["MAC/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(count * shape.rows * shape.columns),
      benchmark::Counter::kIsRate);
}
#endif

// Adds up what lies at `from`, read at kStreams places in turn, of_stream words each.
template <int kStreams>
uint64_t SumInTurn(const uint64_t* from, int64_t of_stream) {
  constexpr int64_t kLine = 64 / sizeof(uint64_t);
  uint64_t sums[kLine] = {};
  for (int64_t i = 0; i < of_stream; i += kLine) {
    for (int k = 0; k < kStreams; ++k) {
      for (int64_t word = 0; word < kLine; ++word) sums[word] += from[k * of_stream + i + word];
    }
  }
  return std::accumulate(sums, sums + kLine, uint64_t{0});
}

// The bound of a product at batch 1: all threads reading memory, each at so many places in turn. From several it comes
// faster.
template <int kStreams>
void ReadMemory(benchmark::State& state) {
  ThreadTeam team(Threads());
  HugeMemory memory;
  constexpr int64_t kPieces = 16, kWords = kWeightsBytes / sizeof(uint64_t), kOfStream = kWords / kPieces / kStreams;
  auto* words = reinterpret_cast<uint64_t*>(memory.Take(kWeightsBytes));
  std::fill(words, words + kWords, 1);
  for (auto _ : state) {
    team.ForEach(kPieces, 1, [&](int64_t first, int64_t last) {
      for (; first < last; ++first) {
        benchmark::DoNotOptimize(SumInTurn<kStreams>(words + first * (kWords / kPieces), kOfStream));
      }
    });
  }
  // Not bytes_per_second, which the console divides by 2^30.
  state.counters["GB"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kWeightsBytes / 1e9, benchmark::Counter::kIsRate);
}
BENCHMARK(ReadMemory<1>)->Name("ReadMemory/streams:1")->UseRealTime();
BENCHMARK(ReadMemory<4>)->Name("ReadMemory/streams:4")->UseRealTime();
BENCHMARK(ReadMemory<8>)->Name("ReadMemory/streams:8")->UseRealTime();

// The same for pages of 4 KiB of which kRun lie side by side, the runs in no order: how the pages of a kv cache lie.
template <int kRun>
void ReadPages(benchmark::State& state) {
  ThreadTeam team(Threads());
  HugeMemory memory;
  constexpr int64_t kBytes = int64_t{256} << 20, kPageWords = 4096 / sizeof(uint64_t), kRunWords = kRun * kPageWords;
  constexpr int64_t kWords = kBytes / sizeof(uint64_t), kRuns = kWords / kRunWords;
  auto* words = reinterpret_cast<uint64_t*>(memory.Take(kBytes));
  std::fill(words, words + kWords, 1);
  std::vector<int32_t> runs(kRuns);
  std::iota(runs.begin(), runs.end(), 0);
  std::shuffle(runs.begin(), runs.end(), std::mt19937(1));
  for (auto _ : state) {
    team.ForEach(kRuns, kRuns / 16, [&](int64_t first, int64_t last) {
      for (; first < last; ++first) benchmark::DoNotOptimize(SumInTurn<1>(words + runs[first] * kRunWords, kRunWords));
    });
  }
  state.counters["GB"] =
      benchmark::Counter(static_cast<double>(state.iterations()) * kBytes / 1e9, benchmark::Counter::kIsRate);
}
BENCHMARK(ReadPages<1>)->Name("ReadPages/run:1")->UseRealTime();
BENCHMARK(ReadPages<8>)->Name("ReadPages/run:8")->UseRealTime();
BENCHMARK(ReadPages<64>)->Name("ReadPages/run:64")->UseRealTime();
BENCHMARK(ReadPages<1024>)->Name("ReadPages/run:1024")->UseRealTime();

#if defined(__x86_64__)
// What `instruction`, whose last register lacks its number, does to ten registers in turn, twice.
#define TIDEPOOL_TEN(instruction)                                                                       \
  instruction "0\n" instruction "1\n" instruction "2\n" instruction "3\n" instruction "4\n" instruction \
              "5\n" instruction "6\n" instruction "7\n" instruction "8\n" instruction "9\n"
#define TIDEPOOL_IN_REGISTERS(instruction)                           \
  asm volatile(TIDEPOOL_TEN(instruction) TIDEPOOL_TEN(instruction):: \
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10")
constexpr int64_t kInRegisters = 20;

// The bound of products of many rows: the instructions that multiply bytes, and with AVX2 those that add what they
// give, on numbers that are in registers. Returns the multiply-adds.
int64_t MultiplyBytes(Isa isa) {
  if (isa == Isa::kAvx512) {
    TIDEPOOL_IN_REGISTERS("vpdpbusd %%zmm15, %%zmm14, %%zmm");
    return kInRegisters * 64;
  }
  TIDEPOOL_IN_REGISTERS("vpmaddubsw %%ymm15, %%ymm14, %%ymm10\n vpaddw %%ymm10, %%ymm13, %%ymm");
  return kInRegisters * 32;
}

// The bound of attention: multiply-adds of floats.
int64_t MultiplyFloats(Isa isa) {
  if (isa == Isa::kAvx512) {
    TIDEPOOL_IN_REGISTERS("vfmadd231ps %%zmm15, %%zmm14, %%zmm");
    return kInRegisters * 16;
  }
  TIDEPOOL_IN_REGISTERS("vfmadd231ps %%ymm15, %%ymm14, %%ymm");
  return kInRegisters * 8;
}

template <int64_t (*kMultiply)(Isa)>
void Peak(benchmark::State& state) {
  const Isa isa = ActiveIsa();
  if (isa == Isa::kBaseline) return state.SkipWithError("AVX2 or AVX-512 only");
  ThreadTeam team(Threads());
  std::atomic<int64_t> done{0};
  for (auto _ : state) {
    team.ForEach(64, 1, [&](int64_t, int64_t) {
      int64_t products = 0;
      for (int i = 0; i < 1000; ++i) products += kMultiply(isa);
      done += products;
    });
  }
  state.SetLabel(IsaName(isa));
  state.counters["MAC/s"] = benchmark::Counter(static_cast<double>(done.load()), benchmark::Counter::kIsRate);
}
BENCHMARK(Peak<MultiplyBytes>)->Name("Int8Peak")->UseRealTime();
BENCHMARK(Peak<MultiplyFloats>)->Name("FloatPeak")->UseRealTime();
#endif

// An empty parallel region: what every MatMul pays besides its arithmetic.
void EmptyRegion(benchmark::State& state) {
  ThreadTeam team(Threads());
  for (auto _ : state) team.Run([](int) {});
}

// 576 numbers of `count` rows to int8.
void Quantize(benchmark::State& state, int64_t count) {
  ThreadTeam team(Threads());
  const std::vector<float> x(count * 576, 0.5f);
  Activations activations;
  for (auto _ : state) activations.Set(x.data(), count, 576, /*quantized=*/true, team);
  state.SetItemsProcessed(state.iterations() * count * 576);
}

void Register() {
  benchmark::RegisterBenchmark("EmptyRegion", EmptyRegion)->UseRealTime();
  for (int64_t count : {1, 64}) {
    benchmark::RegisterBenchmark(("Quantize/batch:" + std::to_string(count)).c_str(), [=](benchmark::State& state) {
      Quantize(state, count);
    })->UseRealTime();
  }
  for (const Shape& shape : {Shape{TensorType::kQ4_1, 576, 576}, Shape{TensorType::kQ4_1, 1536, 576},
                             Shape{TensorType::kQ4_1, 576, 1536}, Shape{TensorType::kQ8_0, 49152, 576}}) {
    for (int64_t count : {1, 8, 64, 256}) {
      const std::string name = std::string(TensorTypeName(shape.type)) + "/" + std::to_string(shape.rows) + "x" +
                               std::to_string(shape.columns) + "/batch:" + std::to_string(count);
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        Product(state, shape, count);
      })->UseRealTime();
#ifdef TIDEPOOL_ONEDNN
      const std::string of = name.substr(name.find('/'));
      for (const auto type : {OneDnnProduct::Type::kFloat, OneDnnProduct::Type::kInt8}) {
        const std::string as = type == OneDnnProduct::Type::kFloat ? "oneDNN/f32" : "oneDNN/int8";
        benchmark::RegisterBenchmark((as + of).c_str(), [=](benchmark::State& state) {
          OneDnn(state, type, shape, count);
        })->UseRealTime();
      }
#endif
    }
  }
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  tidepool::Register();
  benchmark::RunSpecifiedBenchmarks();
}
