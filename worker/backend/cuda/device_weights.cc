#include "worker/backend/cuda/device_weights.h"

#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "worker/backend/cuda/device_memory.h"
#include "worker/kernels/cpu/packed_source.h"

namespace tidepool::cuda {
namespace {

MatrixFormat FormatOfType(TensorType type) {
  switch (type) {
    case TensorType::kF32: return MatrixFormat::kF32;
    case TensorType::kF16: return MatrixFormat::kF16;
    case TensorType::kBF16: return MatrixFormat::kBF16;
    case TensorType::kQ4_0: return MatrixFormat::kNibbles;
    case TensorType::kQ4_1: return MatrixFormat::kNibblesMinimum;
    case TensorType::kQ4_K: return MatrixFormat::kNibblesK;
    case TensorType::kQ5_0:
    case TensorType::kQ8_0: return MatrixFormat::kBytes;
    case TensorType::kQ5_1: return MatrixFormat::kBytesMinimum;
    case TensorType::kQ5_K: return MatrixFormat::kBytesK;
    case TensorType::kQ6_K: return MatrixFormat::kBytesK16;
  }
  TIDEPOOL_CHECK(false);
  return MatrixFormat::kF32;
}

// Values of bytes formats are signed on the device.
int SignedOffset(TensorType type) {
  switch (type) {
    case TensorType::kQ5_0: return 16;
    case TensorType::kQ8_0: return 128;
    case TensorType::kQ6_K: return 32;
    default: return 0;
  }
}

// A matrix on its way.
struct HostMatrix {
  std::vector<uint8_t> values, scales;
  std::vector<uint16_t> supers;
};

// Block layouts: worker/model/dequantize.cc. scales: two bytes for each block of the super-block.
void PackSuper(TensorType type, const uint8_t* super, uint8_t* scales, uint16_t* supers) {
  if (type == TensorType::kQ6_K) {
    std::memcpy(scales, super + 192, 16);
    std::memcpy(supers, super + 208, 2);
    supers[1] = 0;
    return;
  }
  std::memcpy(supers, super, 4);
  const uint8_t* packed = super + 4;
  for (int group = 0; group < 8; ++group) {
    uint8_t* both = scales + 2 * group;  // scale and minimum
    if (group < 4) {
      both[0] = packed[group] & 63;
      both[1] = packed[group + 4] & 63;
    } else {
      both[0] = static_cast<uint8_t>((packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4));
      both[1] = static_cast<uint8_t>((packed[group + 4] >> 4) | (packed[group] >> 6 << 4));
    }
  }
}

void PackValues(const TensorView& tensor, const FormatFacts& facts, int64_t row, int64_t block, uint8_t* to,
                SourceBlock& source) {
  source = ReadSourceBlock(tensor.type, tensor.data + static_cast<size_t>(row) * tensor.row_bytes(), block);
  if (facts.bits == 4) {
    for (int i = 0; i < kBlock / 2; ++i) to[i] = static_cast<uint8_t>(source.values[i] | source.values[i + 16] << 4);
  } else {
    for (int i = 0; i < kBlock; ++i) to[i] = static_cast<uint8_t>(source.values[i] - SignedOffset(tensor.type));
  }
}

HostMatrix PackQuantized(const TensorView& tensor, const FormatFacts& facts, ThreadTeam& team) {
  HostMatrix out;
  const int64_t blocks = tensor.columns / kBlock, all = tensor.rows * blocks;
  out.values.resize(static_cast<size_t>(all) * kBlock * facts.bits / 8);
  const size_t scale_bytes = !facts.k && facts.minimum ? 4 : 2;  // of a block
  out.scales.resize(all * scale_bytes);
  const int64_t supers = facts.k ? tensor.columns / kSuperBlock : 0;
  out.supers.resize(2 * tensor.rows * supers);
  team.ForEach(tensor.rows, 16, [&](int64_t first, int64_t last) {
    SourceBlock source;
    for (int64_t row = first; row < last; ++row) {
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t at = row * blocks + block;
        PackValues(tensor, facts, row, block, out.values.data() + at * kBlock * facts.bits / 8, source);
        if (facts.k) continue;
        uint8_t* scales = out.scales.data() + at * scale_bytes;
        std::memcpy(scales, &source.half_scale, 2);
        if (facts.minimum) std::memcpy(scales + 2, &source.half_minimum, 2);
      }
      for (int64_t super = 0; super < supers; ++super) {
        const int64_t at = row * blocks + super * (kSuperBlock / kBlock);
        PackSuper(tensor.type, tensor.data + row * tensor.row_bytes() + super * BlockBytes(tensor.type),
                  out.scales.data() + at * scale_bytes, out.supers.data() + 2 * (row * supers + super));
      }
    }
  });
  return out;
}

HostMatrix Dequantized(const TensorView& tensor, ThreadTeam& team) {
  HostMatrix out;
  out.values.resize(static_cast<size_t>(tensor.rows) * tensor.columns * sizeof(float));
  team.ForEach(tensor.rows, 16, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      DequantizeRow(tensor, row, reinterpret_cast<float*>(out.values.data()) + row * tensor.columns);
    }
  });
  return out;
}

}  // namespace

class WeightLoader {
 public:
  WeightLoader(DeviceWeights* weights, bool as_f32, ThreadTeam* team)
      : weights_(weights), device_(weights->device_), as_f32_(as_f32), team_(team), staging_(device_, true) {}

  absl::Status Matrix(const TensorView& tensor, DeviceMatrix& to) {
    to.rows = static_cast<int32_t>(tensor.rows);
    to.columns = static_cast<int32_t>(tensor.columns);
    to.format = as_f32_ ? MatrixFormat::kF32 : FormatOfType(tensor.type);
    const FormatFacts facts = FactsOf(to.format);
    if (facts.scales == 0 && !as_f32_) return Copy(tensor.data, tensor.bytes(), to.values);
    const HostMatrix packed = as_f32_ ? Dequantized(tensor, *team_) : PackQuantized(tensor, facts, *team_);
    TP_RETURN_IF_ERROR(Copy(packed.values.data(), packed.values.size(), to.values));
    TP_RETURN_IF_ERROR(Copy(packed.scales.data(), packed.scales.size(), to.scales));
    const uint8_t* supers = nullptr;
    TP_RETURN_IF_ERROR(Copy(packed.supers.data(), packed.supers.size() * sizeof(uint16_t), supers));
    to.supers = reinterpret_cast<const uint16_t*>(supers);
    return absl::OkStatus();
  }

  absl::Status Vector(const TensorView& tensor, const float*& to) {
    if (tensor.empty()) return absl::OkStatus();
    const HostMatrix values = Dequantized(tensor, *team_);
    const uint8_t* memory = nullptr;
    TP_RETURN_IF_ERROR(Copy(values.values.data(), values.values.size(), memory));
    to = reinterpret_cast<const float*>(memory);
    return absl::OkStatus();
  }

 private:
  static constexpr size_t kStagingBytes = size_t{32} << 20;

  absl::Status Copy(const void* from, size_t bytes, const uint8_t*& to) {
    if (bytes == 0) return absl::OkStatus();
    TP_ASSIGN_OR_RETURN(void* const memory, device_->Allocate(bytes));
    weights_->memory_.push_back(memory);
    weights_->bytes += bytes;
    char* staging = staging_.Get<char>(std::min(bytes, kStagingBytes));
    for (size_t done = 0; done < bytes;) {
      const size_t part = std::min(bytes - done, kStagingBytes);
      std::memcpy(staging, static_cast<const char*>(from) + done, part);
      device_->CopyToDevice(static_cast<char*>(memory) + done, staging, part);
      device_->Synchronize();
      done += part;
    }
    to = static_cast<const uint8_t*>(memory);
    return absl::OkStatus();
  }

  DeviceWeights* const weights_;
  Device* const device_;
  const bool as_f32_;
  ThreadTeam* const team_;
  DeviceBuffer staging_;
};

absl::StatusOr<std::unique_ptr<DeviceWeights>> DeviceWeights::Load(const Model& model, bool as_f32, Device* device,
                                                                   ThreadTeam& team) {
  std::unique_ptr<DeviceWeights> weights(new DeviceWeights(device));
  WeightLoader load(weights.get(), as_f32, &team);
  for (int i = 0; i < model.config().layers; ++i) {
    const LayerTensors& from = model.layer(i);
    DeviceLayer& to = weights->layers.emplace_back();
    TP_RETURN_IF_ERROR(load.Vector(from.attention_norm, to.attention_norm));
    TP_RETURN_IF_ERROR(load.Vector(from.ffn_norm, to.ffn_norm));
    TP_RETURN_IF_ERROR(load.Vector(from.q_bias, to.q_bias));
    TP_RETURN_IF_ERROR(load.Vector(from.k_bias, to.k_bias));
    TP_RETURN_IF_ERROR(load.Vector(from.v_bias, to.v_bias));
    TP_RETURN_IF_ERROR(load.Vector(from.q_norm, to.q_norm));
    TP_RETURN_IF_ERROR(load.Vector(from.k_norm, to.k_norm));
    TP_RETURN_IF_ERROR(load.Matrix(from.q, to.q));
    TP_RETURN_IF_ERROR(load.Matrix(from.k, to.k));
    TP_RETURN_IF_ERROR(load.Matrix(from.v, to.v));
    TP_RETURN_IF_ERROR(load.Matrix(from.output, to.output));
    TP_RETURN_IF_ERROR(load.Matrix(from.gate, to.gate));
    TP_RETURN_IF_ERROR(load.Matrix(from.up, to.up));
    TP_RETURN_IF_ERROR(load.Matrix(from.down, to.down));
  }
  TP_RETURN_IF_ERROR(load.Vector(model.output_norm(), weights->output_norm));
  TP_RETURN_IF_ERROR(load.Matrix(model.output(), weights->output));
  if (model.token_embedding().data == model.output().data) {
    weights->embedding = weights->output;
  } else {
    TP_RETURN_IF_ERROR(load.Matrix(model.token_embedding(), weights->embedding));
  }
  return weights;
}

absl::StatusOr<std::unique_ptr<LoadedMatrix>> LoadMatrix(const TensorView& tensor, Device* device, ThreadTeam& team) {
  auto loaded = std::make_unique<LoadedMatrix>();
  loaded->owner.reset(new DeviceWeights(device));
  TP_RETURN_IF_ERROR(WeightLoader(loaded->owner.get(), /*as_f32=*/false, &team).Matrix(tensor, loaded->matrix));
  return loaded;
}

DeviceWeights::~DeviceWeights() {
  device_->Synchronize();
  for (void* memory : memory_) device_->Free(memory);
}

}  // namespace tidepool::cuda
