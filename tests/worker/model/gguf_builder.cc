#include "tests/worker/model/gguf_builder.h"

#include <algorithm>

#include "base/check.h"
#include "worker/model/byte_alphabet.h"

namespace tidepool::test {

GgufBuilder& GgufBuilder::Set(std::string_view key, uint32_t type, std::string payload) {
  for (Key& entry : keys_) {
    if (entry.name != key) continue;
    entry.type = type;
    entry.payload = std::move(payload);
    return *this;
  }
  return Append(key, type, std::move(payload));
}

GgufBuilder& GgufBuilder::Append(std::string_view key, uint32_t type, std::string payload) {
  keys_.push_back({std::string(key), type, std::move(payload)});
  return *this;
}

GgufBuilder& GgufBuilder::Erase(std::string_view key) {
  keys_.erase(std::remove_if(keys_.begin(), keys_.end(), [&](const Key& entry) { return entry.name == key; }),
              keys_.end());
  return *this;
}

GgufBuilder& GgufBuilder::Strings(std::string_view key, const std::vector<std::string>& values) {
  std::string payload = Bytes(uint32_t{8}) + Bytes(uint64_t{values.size()});
  for (const std::string& value : values) payload += Text(value);
  return Set(key, 9, payload);
}

GgufBuilder& GgufBuilder::AddF32(std::string_view name, std::vector<uint64_t> dimensions) {
  uint64_t elements = 1;
  for (const uint64_t size : dimensions) elements *= size;
  Tensor tensor{.name = std::string(name), .dimensions = std::move(dimensions)};
  for (uint64_t i = 0; i < elements; ++i) tensor.data += Bytes(0.01f * static_cast<float>(1 + i % 97));
  tensors.push_back(std::move(tensor));
  return *this;
}

GgufBuilder::Tensor& GgufBuilder::Find(std::string_view name) {
  for (Tensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  TIDEPOOL_CHECK(false);
}

GgufBuilder& GgufBuilder::EraseTensor(std::string_view name) {
  tensors.erase(
      std::remove_if(tensors.begin(), tensors.end(), [&](const Tensor& tensor) { return tensor.name == name; }),
      tensors.end());
  return *this;
}

std::string GgufBuilder::Build() const {
  const auto align = [this](uint64_t size) { return (size + alignment - 1) / alignment * alignment; };
  std::string file = magic + Bytes(version);
  file += Bytes(claimed_tensors < 0 ? uint64_t{tensors.size()} : static_cast<uint64_t>(claimed_tensors));
  file += Bytes(claimed_keys < 0 ? uint64_t{keys_.size()} : static_cast<uint64_t>(claimed_keys));
  for (const Key& key : keys_) file += Text(key.name) + Bytes(key.type) + key.payload;
  std::string data;
  for (const Tensor& tensor : tensors) {
    file += Text(tensor.name) + Bytes(static_cast<uint32_t>(tensor.dimensions.size()));
    for (const uint64_t size : tensor.dimensions) file += Bytes(size);
    data.resize(align(data.size()));
    file +=
        Bytes(tensor.type) + Bytes(tensor.offset < 0 ? uint64_t{data.size()} : static_cast<uint64_t>(tensor.offset));
    data += tensor.data;
  }
  file.resize(align(file.size()));
  return file + data;
}

void AddByteVocabulary(std::string_view pre_tokenizer, GgufBuilder* builder, int vocabulary) {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds(vocabulary, 1);
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    tokens.push_back(BytesToLetters({&raw, 1}));
  }
  for (const char* text : {"ab", "<|im_start|>", "<|im_end|>", "<tool>"}) tokens.push_back(text);
  kinds[257] = kinds[258] = 3;
  kinds[259] = 4;
  for (int i = 260; i < vocabulary; ++i) {
    tokens.push_back("<fill" + std::to_string(i) + ">");
    kinds[i] = 5;
  }
  builder->String("tokenizer.ggml.model", "gpt2").String("tokenizer.ggml.pre", pre_tokenizer);
  builder->Strings("tokenizer.ggml.tokens", tokens).Array("tokenizer.ggml.token_type", 5, kinds);
  builder->Strings("tokenizer.ggml.merges", {"a b"});
  builder->U32("tokenizer.ggml.bos_token_id", 257).U32("tokenizer.ggml.eos_token_id", 258);
}

GgufBuilder TinyModel(const std::string& architecture) {
  GgufBuilder builder;
  const std::string prefix = architecture + ".";
  builder.String("general.architecture", architecture).String("general.name", "tiny");
  builder.U32(prefix + "block_count", 1).U32(prefix + "embedding_length", 32).U32(prefix + "feed_forward_length", 48);
  builder.U32(prefix + "context_length", 128).F32(prefix + "attention.layer_norm_rms_epsilon", 1e-5f);
  builder.U32(prefix + "attention.head_count", 2).U32(prefix + "attention.head_count_kv", 1);
  builder.F32(prefix + "rope.freq_base", 10000);
  AddByteVocabulary("smollm", &builder);
  builder.AddF32("token_embd.weight", {32, 260}).AddF32("output_norm.weight", {32});
  builder.AddF32("blk.0.attn_norm.weight", {32}).AddF32("blk.0.ffn_norm.weight", {32});
  builder.AddF32("blk.0.attn_q.weight", {32, 32}).AddF32("blk.0.attn_k.weight", {32, 16});
  builder.AddF32("blk.0.attn_v.weight", {32, 16}).AddF32("blk.0.attn_output.weight", {32, 32});
  builder.AddF32("blk.0.ffn_gate.weight", {32, 48}).AddF32("blk.0.ffn_up.weight", {32, 48});
  builder.AddF32("blk.0.ffn_down.weight", {48, 32});
  if (architecture == "qwen2") {
    builder.AddF32("blk.0.attn_q.bias", {32}).AddF32("blk.0.attn_k.bias", {16}).AddF32("blk.0.attn_v.bias", {16});
  }
  if (architecture == "qwen3")
    builder.AddF32("blk.0.attn_q_norm.weight", {16}).AddF32("blk.0.attn_k_norm.weight", {16});
  return builder;
}

}  // namespace tidepool::test
