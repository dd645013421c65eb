// Any bytes as a model file: they are refused or read, and what is read can be used.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/worker/model/gguf_builder.h"
#include "worker/model/gguf_file.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

constexpr int64_t kMaxColumns = 1 << 16;  // rows longer than that are only looked at, not dequantised

void CheckTensors(const GgufFile& file, const uint8_t* data, size_t size) {
  std::vector<float> row;
  for (const TensorView& tensor : file.tensors()) {
    TIDEPOOL_CHECK(tensor.data >= data && tensor.bytes() <= size && tensor.data + tensor.bytes() <= data + size);
    TIDEPOOL_CHECK(file.FindTensor(tensor.name) == &tensor);
    if (tensor.columns > kMaxColumns) continue;
    row.resize(static_cast<size_t>(tensor.columns));
    DequantizeRow(tensor, tensor.rows - 1, row.data());
  }
}

void UseModel(const Model& model) {
  const ModelConfig& config = model.config();
  TIDEPOOL_CHECK(config.rope_frequencies.size() * 2 == static_cast<size_t>(config.rope_dims));
  TIDEPOOL_CHECK(model.tokenizer().vocabulary() == config.vocabulary);
  for (const bool special : {false, true}) {
    for (const int32_t token : model.tokenizer().Encode("ab 12<|im_end|>\xff", special, true)) {
      TIDEPOOL_CHECK(token >= 0 && token < config.vocabulary);
      model.tokenizer().Piece(token, special);
    }
  }
  const auto chat = model.chat_template();
  if (chat.ok()) (*chat)->Render(std::vector<ChatMessage>{{"user", "a"}, {"assistant", "b"}}, true).IgnoreError();
}

void RunInput(const uint8_t* data, size_t size) {
  const auto file = GgufFile::Parse("fuzz", {data, size});
  if (!file.ok()) {
    TIDEPOOL_CHECK(!file.status().message().empty());
    return;
  }
  CheckTensors(**file, data, size);
  const auto tokenizer = Tokenizer::FromGguf(**file);
  if (tokenizer.ok()) (*tokenizer)->Encode("ab <|im_end|>", true, true);

  static const int fd = memfd_create("fuzz", 0);
  TIDEPOOL_CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == static_cast<ssize_t>(size));
  const auto model = Model::Load(absl::StrCat("/proc/self/fd/", fd));
  if (model.ok()) UseModel(**model);
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  std::vector<std::string> seeds;
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    GgufBuilder builder = TinyModel(architecture);
    builder.String("tokenizer.chat_template", "'<|im_start|>system\nBe good.<|im_end|>\n'");
    builder.String(absl::StrCat(architecture, ".rope.scaling.type"), "yarn");
    builder.F32(absl::StrCat(architecture, ".rope.scaling.factor"), 2);
    seeds.push_back(builder.Build());
  }
  GgufBuilder spm;
  spm.String("general.architecture", "llama").String("tokenizer.ggml.model", "llama");
  spm.Strings("tokenizer.ggml.tokens", {"<unk>", "a", "<0x41>"}).Array<float>("tokenizer.ggml.scores", 6, {0, -1, 0});
  spm.Array<int32_t>("tokenizer.ggml.token_type", 5, {2, 1, 6});
  seeds.push_back(spm.Build());
  return seeds;
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput(data, size);
  return 0;
}
