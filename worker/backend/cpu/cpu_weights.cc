#include "worker/backend/cpu/cpu_weights.h"

namespace tidepool {
namespace {

std::vector<float> Vector(const TensorView& tensor) {
  std::vector<float> values;
  if (tensor.empty()) return values;
  values.resize(static_cast<size_t>(tensor.rows * tensor.columns));
  for (int64_t row = 0; row < tensor.rows; ++row) DequantizeRow(tensor, row, values.data() + row * tensor.columns);
  return values;
}

}  // namespace

CpuWeights::CpuWeights(const Model& model, bool as_f32, ThreadTeam& team) {
  auto pack = [&](const TensorView& tensor) { return PackedMatrix::Pack(tensor, as_f32, team, memory_); };
  for (int i = 0; i < model.config().layers; ++i) {
    const LayerTensors& from = model.layer(i);
    CpuLayerWeights& to = layers.emplace_back();
    to.attention_norm = Vector(from.attention_norm);
    to.ffn_norm = Vector(from.ffn_norm);
    to.q_bias = Vector(from.q_bias);
    to.k_bias = Vector(from.k_bias);
    to.v_bias = Vector(from.v_bias);
    to.q_norm = Vector(from.q_norm);
    to.k_norm = Vector(from.k_norm);
    to.q = pack(from.q);
    to.k = pack(from.k);
    to.v = pack(from.v);
    to.output = pack(from.output);
    to.gate = pack(from.gate);
    to.up = pack(from.up);
    to.down = pack(from.down);
  }
  output_norm = Vector(model.output_norm());
  output = pack(model.output());
  if (model.token_embedding().data != model.output().data) embedding_ = &model.token_embedding();
}

void CpuWeights::Embed(int32_t token, float* out) const {
  if (embedding_ != nullptr) return DequantizeRow(*embedding_, token, out);
  output.ReadRow(token, out);
}

}  // namespace tidepool
