// Logits that others computed: the tiny random models (tests/data/tiny_models/README.md) and SmolLM2
// (tests/data/smollm2/README.md). Files that are missing or of another shape throw, which ends the test with the
// reason.
#ifndef TIDEPOOL_TESTS_WORKER_MODEL_ORACLE_ORACLE_DATA_H_
#define TIDEPOOL_TESTS_WORKER_MODEL_ORACLE_ORACLE_DATA_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tidepool::test {

struct GreedyPath {
  std::string name;
  std::vector<int32_t> prompt;
  std::vector<int32_t> new_ids;
  std::vector<float> margins;  // by how much each led the second
};

struct TinyPrompt {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids][vocabulary]
};

struct TinyModel {
  std::string name;  // llama_f32
  std::string path;  // of the .gguf
  int vocabulary = 0;
  std::vector<TinyPrompt> prompts;
  GreedyPath greedy;  // continues the first prompt
};

std::vector<TinyModel> ReadTinyModels();

struct SmolPrompt {
  std::string name;  // p5, p60, p500, p2000
  std::vector<int32_t> ids;
  std::vector<int32_t> positions;
  std::vector<std::vector<int32_t>> top_ids;  // 20 at each of the positions
  std::vector<std::vector<float>> top_logits;
  double mean_nll = 0;             // nats, of every token but the first
  std::vector<float> last_logits;  // [vocabulary], at the last position
};

SmolPrompt ReadSmolPrompt(const std::string& name);
std::vector<GreedyPath> ReadSmolGreedy();

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_MODEL_ORACLE_ORACLE_DATA_H_
