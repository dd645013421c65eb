#include "worker/model/model.h"

#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "worker/model/gguf_file.h"
#include "worker/model/gguf_parser.h"

namespace tidepool {
namespace {

std::string Shape(const TensorView& tensor) {
  return absl::StrCat(TensorTypeName(tensor.type), " ", tensor.rows, " x ", tensor.columns);
}

// Hands out the file's tensors by name and shape, and notices those that nobody asked for.
class TensorDirectory {
 public:
  explicit TensorDirectory(const GgufFile& file) : file_(file) {}

  absl::StatusOr<TensorView> Matrix(const std::string& name, int64_t rows, int64_t columns) {
    const TensorView* tensor = file_.FindTensor(name);
    if (tensor == nullptr)
      return file_.Error(absl::StatusCode::kNotFound, absl::StrCat("tensor ", name, " is missing"));
    if (tensor->rows != rows || tensor->columns != columns) {
      return file_.Error(absl::StatusCode::kInvalidArgument, absl::StrCat("tensor ", name, " is ", Shape(*tensor),
                                                                          "; the keys say ", rows, " x ", columns));
    }
    used_.insert(tensor->data);
    bytes_ += tensor->bytes();
    return *tensor;
  }

  // Norm weights and biases. Exported models keep them in float32, and so we read them in place.
  absl::StatusOr<TensorView> Vector(const std::string& name, int64_t size) {
    TP_ASSIGN_OR_RETURN(TensorView tensor, Matrix(name, 1, size));
    if (tensor.type != TensorType::kF32) {
      return file_.Error(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("tensor ", name, " is ", Shape(tensor), "; its type must be F32"));
    }
    for (int64_t i = 0; i < size; ++i) {
      float value;
      std::memcpy(&value, tensor.data + i * sizeof(float), sizeof value);
      if (!std::isfinite(value)) {
        return file_.Error(absl::StatusCode::kDataLoss, absl::StrCat("tensor ", name, "[", i, "] is ", value));
      }
    }
    return tensor;
  }

  bool Has(const std::string& name) const { return file_.FindTensor(name) != nullptr; }
  size_t bytes() const { return bytes_; }

  // A tensor that we would ignore means a model that computes something else than we do.
  absl::Status CheckAllUsed() const {
    for (const TensorView& tensor : file_.tensors()) {
      if (tensor.name == "rope_freqs.weight" || used_.contains(tensor.data)) continue;
      return file_.Error(absl::StatusCode::kUnimplemented,
                         absl::StrCat("tensor ", Printable(tensor.name), " is not part of the supported architecture"));
    }
    return absl::OkStatus();
  }

 private:
  const GgufFile& file_;
  absl::flat_hash_set<const uint8_t*> used_;
  size_t bytes_ = 0;
};

absl::StatusOr<LayerTensors> ReadLayer(const ModelConfig& config, int index, TensorDirectory* tensors) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  const int64_t width = config.width, ffn = config.ffn_width;
  const int64_t q_rows = int64_t{config.heads} * config.head_dim, kv_rows = int64_t{config.kv_heads} * config.head_dim;
  LayerTensors layer;
  TP_ASSIGN_OR_RETURN(layer.attention_norm, tensors->Vector(prefix + "attn_norm.weight", width));
  TP_ASSIGN_OR_RETURN(layer.q, tensors->Matrix(prefix + "attn_q.weight", q_rows, width));
  TP_ASSIGN_OR_RETURN(layer.k, tensors->Matrix(prefix + "attn_k.weight", kv_rows, width));
  TP_ASSIGN_OR_RETURN(layer.v, tensors->Matrix(prefix + "attn_v.weight", kv_rows, width));
  if (config.qkv_bias) {
    TP_ASSIGN_OR_RETURN(layer.q_bias, tensors->Vector(prefix + "attn_q.bias", q_rows));
    TP_ASSIGN_OR_RETURN(layer.k_bias, tensors->Vector(prefix + "attn_k.bias", kv_rows));
    TP_ASSIGN_OR_RETURN(layer.v_bias, tensors->Vector(prefix + "attn_v.bias", kv_rows));
  }
  if (config.qk_norm) {
    TP_ASSIGN_OR_RETURN(layer.q_norm, tensors->Vector(prefix + "attn_q_norm.weight", config.head_dim));
    TP_ASSIGN_OR_RETURN(layer.k_norm, tensors->Vector(prefix + "attn_k_norm.weight", config.head_dim));
  }
  TP_ASSIGN_OR_RETURN(layer.output, tensors->Matrix(prefix + "attn_output.weight", width, q_rows));
  TP_ASSIGN_OR_RETURN(layer.ffn_norm, tensors->Vector(prefix + "ffn_norm.weight", width));
  TP_ASSIGN_OR_RETURN(layer.gate, tensors->Matrix(prefix + "ffn_gate.weight", ffn, width));
  TP_ASSIGN_OR_RETURN(layer.up, tensors->Matrix(prefix + "ffn_up.weight", ffn, width));
  TP_ASSIGN_OR_RETURN(layer.down, tensors->Matrix(prefix + "ffn_down.weight", width, ffn));
  return layer;
}

std::vector<const TensorView*> Views(const LayerTensors& layer) {
  std::vector<const TensorView*> views;
  for (const TensorView* view :
       {&layer.attention_norm, &layer.q, &layer.k, &layer.v, &layer.q_bias, &layer.k_bias, &layer.v_bias, &layer.q_norm,
        &layer.k_norm, &layer.output, &layer.ffn_norm, &layer.gate, &layer.up, &layer.down}) {
    if (!view->empty()) views.push_back(view);
  }
  return views;
}

// Version of the fingerprint's recipe: a change of it makes stored blocks unreachable, so it must be deliberate.
constexpr std::string_view kFingerprintRecipe = "tidepool model fingerprint 1";
constexpr size_t kSampleBytes = 4096;
constexpr size_t kSamples = 16;  // of a tensor: its head, its tail, evenly spaced ones between

template <typename T>
void AddNumber(Sha256* hash, T value) {
  hash->Add(&value, sizeof value);
}

void AddTensor(Sha256* hash, const TensorView& tensor) {
  hash->AddField(tensor.name);
  AddNumber(hash, static_cast<uint32_t>(tensor.type));
  AddNumber(hash, tensor.rows);
  AddNumber(hash, tensor.columns);
  const size_t bytes = tensor.bytes();
  if (bytes <= kSamples * kSampleBytes) {
    hash->Add(tensor.data, bytes);
    return;
  }
  for (size_t i = 0; i < kSamples; ++i) {
    hash->Add(tensor.data + (bytes - kSampleBytes) / (kSamples - 1) * i, kSampleBytes);
  }
  hash->Add(tensor.data + bytes - kSampleBytes, kSampleBytes);
}

void AddConfig(Sha256* hash, const ModelConfig& config) {
  hash->AddField(config.architecture);
  for (const int number : {config.layers, config.width, config.heads, config.kv_heads, config.head_dim,
                           config.ffn_width, config.vocabulary, config.rope_dims}) {
    AddNumber(hash, number);
  }
  for (const bool flag : {config.rope_neox, config.qkv_bias, config.qk_norm})
    AddNumber(hash, static_cast<uint8_t>(flag));
  AddNumber(hash, config.rms_epsilon);
  AddNumber(hash, config.rope_magnitude);
  for (const float frequency : config.rope_frequencies) AddNumber(hash, frequency);
}

// Keys and values depend on the embedding and the layers; the output norm and the output matrix come after the last of
// them.
std::string Fingerprint(const ModelConfig& config, const TensorView& embedding,
                        const std::vector<LayerTensors>& layers) {
  Sha256 hash;
  hash.AddField(kFingerprintRecipe);
  AddConfig(&hash, config);
  AddTensor(&hash, embedding);
  for (const LayerTensors& layer : layers) {
    for (const TensorView* view : Views(layer)) AddTensor(&hash, *view);
  }
  const Sha256::Digest digest = hash.Finish();
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

std::string TokenText(const Tokenizer& tokenizer, std::optional<int32_t> token) {
  return token ? tokenizer.Piece(*token, /*render_special=*/true) : "";
}

}  // namespace

Model::Model() = default;
Model::~Model() = default;

void Model::ReleasePages() const { file_->ReleasePages(); }

absl::StatusOr<std::shared_ptr<const Model>> Model::Load(const std::string& path) {
  std::shared_ptr<Model> model(new Model());
  model->path_ = path;
  TP_ASSIGN_OR_RETURN(model->file_, GgufFile::Open(path));
  TP_RETURN_IF_ERROR(model->ReadAll());
  return model;
}

absl::Status Model::ReadAll() {
  TP_ASSIGN_OR_RETURN(config_, ReadModelConfig(*file_));
  TensorDirectory tensors(*file_);
  TP_ASSIGN_OR_RETURN(token_embedding_, tensors.Matrix("token_embd.weight", config_.vocabulary, config_.width));
  TP_ASSIGN_OR_RETURN(output_norm_, tensors.Vector("output_norm.weight", config_.width));
  output_ = token_embedding_;
  if (tensors.Has("output.weight")) {
    TP_ASSIGN_OR_RETURN(output_, tensors.Matrix("output.weight", config_.vocabulary, config_.width));
  }
  layers_.reserve(static_cast<size_t>(config_.layers));
  for (int i = 0; i < config_.layers; ++i) {
    TP_ASSIGN_OR_RETURN(LayerTensors layer, ReadLayer(config_, i, &tensors));
    layers_.push_back(std::move(layer));
  }
  TP_RETURN_IF_ERROR(tensors.CheckAllUsed());
  tensor_bytes_ = tensors.bytes();
  fingerprint_ = Fingerprint(config_, token_embedding_, layers_);

  TP_ASSIGN_OR_RETURN(tokenizer_, Tokenizer::FromGguf(*file_));
  const absl::StatusOr<std::string_view> source = file_->String("tokenizer.chat_template");
  if (!source.ok()) {
    chat_template_status_ = source.status();
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::Recognize(
      *source, TokenText(*tokenizer_, tokenizer_->bos()), TokenText(*tokenizer_, tokenizer_->eos()));
  if (chat.ok()) {
    chat_template_ = std::move(*chat);
  } else {
    chat_template_status_ = file_->Error(chat.status().code(), std::string(chat.status().message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<const ChatTemplate*> Model::chat_template() const {
  if (chat_template_ == nullptr) return chat_template_status_;
  return chat_template_.get();
}

}  // namespace tidepool
