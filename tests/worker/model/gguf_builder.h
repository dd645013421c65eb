// Builds GGUF files in memory, right ones and wrong ones, for the tests of loading and for the fuzzers.
#ifndef TIDEPOOL_TESTS_WORKER_MODEL_GGUF_BUILDER_H_
#define TIDEPOOL_TESTS_WORKER_MODEL_GGUF_BUILDER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/model/gguf_file.h"

namespace tidepool::test {

class GgufBuilder {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // ne[0] (columns) first
    uint32_t type = 0;
    std::string data;
    int64_t offset = -1;  // -1: after the one before
  };

  uint32_t version = 3;
  std::string magic = "GGUF";
  uint64_t alignment = 32;  // used for the layout; add the key general.alignment to declare another one
  int64_t claimed_keys = -1, claimed_tensors = -1;  // -1: the truth
  std::vector<Tensor> tensors;

  // Each replaces the key when it is there.
  GgufBuilder& U32(std::string_view key, uint32_t value) { return Set(key, 4, Bytes(value)); }
  GgufBuilder& I32(std::string_view key, int32_t value) { return Set(key, 5, Bytes(value)); }
  GgufBuilder& U64(std::string_view key, uint64_t value) { return Set(key, 10, Bytes(value)); }
  GgufBuilder& F32(std::string_view key, float value) { return Set(key, 6, Bytes(value)); }
  GgufBuilder& Bool(std::string_view key, uint8_t value) { return Set(key, 7, Bytes(value)); }
  GgufBuilder& String(std::string_view key, std::string_view value) { return Set(key, 8, Text(value)); }
  GgufBuilder& Strings(std::string_view key, const std::vector<std::string>& values);
  template <typename T>
  GgufBuilder& Array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    std::string payload = Bytes(type) + Bytes(uint64_t{values.size()});
    for (const T& value : values) payload += Bytes(value);
    return Set(key, 9, payload);
  }
  // Any value: the type id and the bytes that follow it.
  GgufBuilder& Set(std::string_view key, uint32_t type, std::string payload);
  GgufBuilder& Append(std::string_view key, uint32_t type, std::string payload);  // also when the key is there
  GgufBuilder& Erase(std::string_view key);

  // Float32 with small values that differ.
  GgufBuilder& AddF32(std::string_view name, std::vector<uint64_t> dimensions);
  Tensor& Find(std::string_view name);
  GgufBuilder& EraseTensor(std::string_view name);

  std::string Build() const;

  template <typename T>
  static std::string Bytes(T value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  }
  static std::string Text(std::string_view text) { return Bytes(uint64_t{text.size()}).append(text); }

 private:
  struct Key {
    std::string name;
    uint32_t type;
    std::string payload;
  };
  std::vector<Key> keys_;
};

// A complete model of one layer: width 32, 2 query heads and 1 kv head of 16, feed-forward 48, byte-level vocabulary of
// 260. `architecture`: llama, qwen2 or qwen3.
GgufBuilder TinyModel(const std::string& architecture);
// Sets tokenizer.* to bytes 0..255, a merge of "a" and "b", <|im_start|> (257), <|im_end|> (258) and a user-defined
// <tool> (259), and unused tokens up to `vocabulary`.
void AddByteVocabulary(std::string_view pre_tokenizer, GgufBuilder* builder, int vocabulary = 260);

inline absl::Span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_MODEL_GGUF_BUILDER_H_
