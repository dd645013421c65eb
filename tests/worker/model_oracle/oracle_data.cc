#include "tests/worker/model_oracle/oracle_data.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "tests/support/paths.h"

namespace tidepool::test {
namespace {

using Json = nlohmann::json;

std::vector<float> ReadFloats(const std::string& path, size_t expected) {
  const std::string bytes = ReadFile(path);
  if (bytes.size() != expected * sizeof(float)) throw std::runtime_error(path + " has another size than its JSON says");
  std::vector<float> values(expected);
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TinyModel ReadTinyModel(const Json& json) {
  TinyModel model;
  const std::string file = json.at("model");
  model.name = file.substr(0, file.rfind('.'));
  model.path = DataPath("tiny_models/" + file);
  model.vocabulary = json.at("vocabulary");
  size_t tokens = 0;
  for (const Json& ids : json.at("prompts")) {
    model.prompts.push_back({ids, {}});
    tokens += ids.size();
  }
  const size_t vocabulary = model.vocabulary;
  const std::string logits_file = json.at("logits");
  const std::vector<float> all = ReadFloats(DataPath("tiny_models/" + logits_file), tokens * vocabulary);
  auto next = all.begin();
  for (TinyPrompt& prompt : model.prompts) {
    const auto end = next + static_cast<ptrdiff_t>(prompt.ids.size() * vocabulary);
    prompt.logits.assign(next, end);
    next = end;
  }
  const Json& greedy = json.at("greedy");
  model.greedy = {model.name, model.prompts[0].ids, greedy.at("new_ids"), greedy.at("margins")};
  return model;
}

}  // namespace

std::vector<TinyModel> ReadTinyModels() {
  std::vector<TinyModel> models;
  for (const Json& json : Json::parse(ReadFile(DataPath("tiny_models/cases.json")))) {
    models.push_back(ReadTinyModel(json));
  }
  return models;
}

SmolPrompt ReadSmolPrompt(const std::string& name) {
  const Json json = Json::parse(ReadFile(ReferencePath("smollm2/logits.json"))).at(name);
  constexpr size_t kVocabulary = 49152;
  return {name,
          json.at("ids"),
          json.at("positions"),
          json.at("top20_ids"),
          json.at("top20_logits"),
          json.at("mean_nll"),
          ReadFloats(ReferencePath("smollm2/logits_" + name + "_last.f32"), kVocabulary)};
}

std::vector<GreedyPath> ReadSmolGreedy() {
  std::vector<GreedyPath> paths;
  const Json json = Json::parse(ReadFile(ReferencePath("smollm2/greedy.json")));
  for (const auto& [name, path] : json.items()) {
    paths.push_back({name, path.at("ids"), path.at("new_ids"), path.at("margin")});
  }
  return paths;
}

}  // namespace tidepool::test
