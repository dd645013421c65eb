// Where tests find the reference data and the models.
//   TIDEPOOL_REFERENCE_DIR   default tests/data; any other set of the same format
//   TIDEPOOL_MODEL_DIR       default models/ (scripts/fetch-models fills it)
#ifndef TIDEPOOL_TESTS_SUPPORT_PATHS_H_
#define TIDEPOOL_TESTS_SUPPORT_PATHS_H_

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace tidepool::test {

inline std::string EnvironmentOr(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

// The oracle's data, or another set of the same format. For example ReferencePath("policies/h2o.json").
inline std::string ReferencePath(const std::string& relative) {
  return EnvironmentOr("TIDEPOOL_REFERENCE_DIR", TIDEPOOL_SOURCE_DIR "/tests/data") + "/" + relative;
}

// Data of our own making, always this repository's. For example DataPath("tiny_models/cases.json").
inline std::string DataPath(const std::string& relative) { return TIDEPOOL_SOURCE_DIR "/tests/data/" + relative; }

// SmolLM2-135M-Instruct.Q4_1.gguf or lookup.gguf. A missing file ends the test with what to do.
inline std::string ModelPath(const std::string& name) {
  const std::string path = EnvironmentOr("TIDEPOOL_MODEL_DIR", TIDEPOOL_SOURCE_DIR "/models") + "/" + name;
  if (!std::ifstream(path)) throw std::runtime_error(path + " is missing: run scripts/fetch-models");
  return path;
}

inline std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_PATHS_H_
