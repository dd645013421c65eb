#include "bench/device/synthetic_model.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "tests/worker/model/gguf_builder.h"

namespace tidepool {
namespace {

constexpr uint64_t kAlignment = 32;

uint16_t Half(float x) {  // a positive ordinary number
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits >> 13) - (112 << 10));
}

// Blocks of `type` whose weights have about the standard deviation `size`, some megabytes of them.
std::vector<char> RandomBlocks(TensorType type, float size) {
  std::mt19937_64 random(1);
  const size_t block = BlockBytes(type), blocks = (size_t{8} << 20) / block;
  std::vector<char> bytes(blocks * block);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(&bytes[i], &word, 8);
  }
  auto put = [&](size_t at, float x) {
    const uint16_t half = Half(x);
    std::memcpy(&bytes[at], &half, 2);
  };
  for (size_t at = 0; at < bytes.size(); at += block) {
    switch (type) {
      case TensorType::kQ4_0: put(at, size / 4.6f); break;
      case TensorType::kQ8_0: put(at, size / 74.0f); break;
      case TensorType::kQ4_K:  // d * scale * value - dmin * minimum, scale and minimum 0 to 63
        put(at, size / 210.0f);
        put(at + 2, size / 28.0f);
        break;
      default: {  // kBF16: of either sign, around `size`
        const uint16_t sign = static_cast<uint16_t>(static_cast<uint8_t>(bytes[at]) & 1) << 15;
        uint32_t bits;
        std::memcpy(&bits, &size, sizeof bits);
        const auto brain = static_cast<uint16_t>(sign | (bits >> 16));
        std::memcpy(&bytes[at], &brain, 2);
      }
    }
  }
  return bytes;
}

struct Planned {
  std::string name;
  uint64_t columns, rows;
  bool matrix;
};

std::vector<Planned> PlanTensors(const SyntheticShape& s) {
  const uint64_t width = s.width, head_dim = width / s.heads, kv_width = head_dim * s.kv_heads, ffn = s.ffn_width,
                 vocabulary = s.vocabulary;
  std::vector<Planned> tensors = {{"token_embd.weight", width, vocabulary, true},
                                  {"output.weight", width, vocabulary, true},
                                  {"output_norm.weight", width, 1, false}};
  for (int i = 0; i < s.layers; ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    tensors.push_back({prefix + "attn_norm.weight", width, 1, false});
    tensors.push_back({prefix + "ffn_norm.weight", width, 1, false});
    tensors.push_back({prefix + "attn_q.weight", width, width, true});
    tensors.push_back({prefix + "attn_k.weight", width, kv_width, true});
    tensors.push_back({prefix + "attn_v.weight", width, kv_width, true});
    tensors.push_back({prefix + "attn_output.weight", width, width, true});
    tensors.push_back({prefix + "ffn_gate.weight", width, ffn, true});
    tensors.push_back({prefix + "ffn_up.weight", width, ffn, true});
    tensors.push_back({prefix + "ffn_down.weight", ffn, width, true});
  }
  return tensors;
}

void AddKeys(const SyntheticShape& s, test::GgufBuilder& builder) {
  builder.String("general.architecture", "llama").String("general.name", "synthetic");
  builder.U32("llama.block_count", s.layers).U32("llama.embedding_length", s.width);
  builder.U32("llama.feed_forward_length", s.ffn_width).U32("llama.context_length", s.context_tokens);
  builder.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f).F32("llama.rope.freq_base", 500000);
  builder.U32("llama.attention.head_count", s.heads).U32("llama.attention.head_count_kv", s.kv_heads);
  test::AddByteVocabulary("smollm", &builder, s.vocabulary);
}

}  // namespace

bool WriteSyntheticModel(const SyntheticShape& shape, const std::string& path) {
  test::GgufBuilder builder;
  AddKeys(shape, builder);
  const std::vector<Planned> tensors = PlanTensors(shape);
  std::vector<uint64_t> sizes;
  uint64_t offset = 0;
  for (const Planned& tensor : tensors) {
    const TensorType type = tensor.matrix ? shape.type : TensorType::kF32;
    test::GgufBuilder::Tensor entry{
        .name = tensor.name, .dimensions = {tensor.columns}, .type = static_cast<uint32_t>(type)};
    if (tensor.matrix) entry.dimensions.push_back(tensor.rows);
    entry.offset = static_cast<int64_t>(offset);
    builder.tensors.push_back(std::move(entry));
    sizes.push_back(tensor.columns * tensor.rows / BlockElements(type) * BlockBytes(type));
    offset += (sizes.back() + kAlignment - 1) / kAlignment * kAlignment;
  }
  std::ofstream file(path, std::ios::binary);
  const std::string header = builder.Build();
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  const std::vector<float> ones(shape.width, 1.0f);
  const std::vector<char> blocks = RandomBlocks(shape.type, 1.0f / std::sqrt(static_cast<float>(shape.width)));
  for (size_t i = 0; i < tensors.size(); ++i) {
    const char* from = tensors[i].matrix ? blocks.data() : reinterpret_cast<const char*>(ones.data());
    for (uint64_t done = 0; done < sizes[i];) {
      const uint64_t part = std::min<uint64_t>(sizes[i] - done, blocks.size());
      file.write(from, static_cast<std::streamsize>(part));
      done += part;
    }
    const std::string padding((kAlignment - sizes[i] % kAlignment) % kAlignment, '\0');
    file.write(padding.data(), static_cast<std::streamsize>(padding.size()));
  }
  return file.good();
}

}  // namespace tidepool
