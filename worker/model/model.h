// A loaded model: config, tensors (views into the mapped file), tokenizer, chat template. Immutable and thread-safe.
#ifndef TIDEPOOL_WORKER_MODEL_MODEL_H_
#define TIDEPOOL_WORKER_MODEL_MODEL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/chat_template.h"
#include "worker/model/model_config.h"
#include "worker/model/tensor_view.h"
#include "worker/model/tokenizer.h"

namespace tidepool {

class GgufFile;

// Shapes: [output][input] as matrices. Empty views where the architecture has none.
struct LayerTensors {
  TensorView attention_norm;          // [width] F32
  TensorView q, k, v;                 // [heads*head_dim][width], [kv_heads*head_dim][width] twice
  TensorView q_bias, k_bias, v_bias;  // qwen2
  TensorView q_norm, k_norm;          // qwen3, [head_dim] F32
  TensorView output;                  // [width][heads*head_dim]
  TensorView ffn_norm;                // [width] F32
  TensorView gate, up, down;          // [ffn_width][width] twice, [width][ffn_width]
};

class Model {
 public:
  // Checks every tensor's presence, type and shape. NotFound, InvalidArgument or DataLoss naming the file and the key
  // or tensor.
  static absl::StatusOr<std::shared_ptr<const Model>> Load(const std::string& path);
  ~Model();

  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  // Hex SHA-256 over config, rope and the bytes of all tensors that determine keys and values (sampled per tensor:
  // head, tail and evenly spaced pages, so that loading stays fast).
  const std::string& fingerprint() const { return fingerprint_; }
  size_t tensor_bytes() const { return tensor_bytes_; }
  // Whoever has copied the weights needs the file's pages no more, but for single rows of the embedding.
  void ReleasePages() const;
  const TensorView& token_embedding() const { return token_embedding_; }  // [vocabulary][width]
  const TensorView& output_norm() const { return output_norm_; }          // [width]
  const TensorView& output() const { return output_; }  // [vocabulary][width]; the embedding when tied
  const LayerTensors& layer(int index) const { return layers_[index]; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  // The error that Recognize gave when the file has no template or an unknown one.
  absl::StatusOr<const ChatTemplate*> chat_template() const;

 private:
  Model();
  absl::Status ReadAll();

  std::string path_, fingerprint_;
  std::unique_ptr<GgufFile> file_;
  ModelConfig config_;
  size_t tensor_bytes_ = 0;
  TensorView token_embedding_, output_norm_, output_;
  std::vector<LayerTensors> layers_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
  absl::Status chat_template_status_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_MODEL_H_
