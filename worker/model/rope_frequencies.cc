#include "worker/model/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

struct Scaling {
  enum class Kind { kNone, kLinear, kYarn } kind = Kind::kNone;
  double factor = 1;
  // yarn only
  double original_context = 0;
  double beta_fast = 32, beta_slow = 1;  // turns within the original context; defaults of the paper
  double extrapolation = 1;
  double attention_factor = 1;
};

absl::StatusOr<Scaling> ReadScaling(const GgufFile& file, const ModelConfig& config) {
  const std::string prefix = config.architecture + ".rope.scaling.";
  Scaling scaling;
  // Files of 2023 have only rope.scale_linear.
  const std::string old_key = config.architecture + ".rope.scale_linear";
  const char* fallback = file.Has(old_key) ? "linear" : "none";
  TP_ASSIGN_OR_RETURN(const std::string_view type, file.StringOr(prefix + "type", fallback));
  if (type == "none") return scaling;
  if (type != "linear" && type != "yarn") {
    return file.Error(absl::StatusCode::kUnimplemented,
                      absl::StrCat("key ", prefix, "type is \"", std::string(type.substr(0, 60)),
                                   "\"; supported are none, linear, yarn"));
  }
  scaling.kind = type == "linear" ? Scaling::Kind::kLinear : Scaling::Kind::kYarn;
  const std::string factor_key = file.Has(prefix + "factor") || !file.Has(old_key) ? prefix + "factor" : old_key;
  TP_ASSIGN_OR_RETURN(scaling.factor, file.Float(factor_key, 1.0 / 1024, 1e6));
  if (scaling.kind == Scaling::Kind::kLinear) return scaling;
  TP_ASSIGN_OR_RETURN(const int64_t original,
                      file.IntegerOr(prefix + "original_context_length", config.context_tokens, 1, int64_t{1} << 30));
  scaling.original_context = static_cast<double>(original);
  TP_ASSIGN_OR_RETURN(scaling.beta_fast, file.FloatOr(prefix + "yarn_beta_fast", scaling.beta_fast, 1e-3, 1e6));
  TP_ASSIGN_OR_RETURN(scaling.beta_slow, file.FloatOr(prefix + "yarn_beta_slow", scaling.beta_slow, 1e-3, 1e6));
  TP_ASSIGN_OR_RETURN(scaling.extrapolation, file.FloatOr(prefix + "yarn_ext_factor", 1, 0, 1));
  const char* attention_key = file.Has(prefix + "yarn_attn_factor") ? "yarn_attn_factor" : "attn_factor";
  TP_ASSIGN_OR_RETURN(scaling.attention_factor, file.FloatOr(prefix + attention_key, 1, 1e-3, 1e3));
  return scaling;
}

// YaRN (arXiv 2309.00071, eq. 19-23): pairs that turn more than beta_fast times within the original context keep their
// frequency, those that turn less than beta_slow times are interpolated, the ones between are mixed linearly by pair
// index.
void ApplyYarn(const Scaling& scaling, double base, int dims, std::vector<double>* frequencies) {
  const auto pair_with_turns = [&](double turns) {
    return dims * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
  };
  const double low = std::max(0.0, std::floor(pair_with_turns(scaling.beta_fast)));
  const double high = std::min(dims - 1.0, std::ceil(pair_with_turns(scaling.beta_slow)));
  for (size_t pair = 0; pair < frequencies->size(); ++pair) {
    const double ramp = std::clamp((static_cast<double>(pair) - low) / std::max(0.001, high - low), 0.0, 1.0);
    const double keep = (1 - ramp) * scaling.extrapolation;
    double& frequency = (*frequencies)[pair];
    frequency = frequency / scaling.factor * (1 - keep) + frequency * keep;
  }
}

// Llama 3 and its relatives carry one divisor for each pair.
absl::Status ApplyFactors(const GgufFile& file, std::vector<double>* frequencies) {
  const TensorView* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return absl::OkStatus();
  const int64_t pairs = static_cast<int64_t>(frequencies->size());
  if (tensor->type != TensorType::kF32 || tensor->rows != 1 || tensor->columns != pairs) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("tensor rope_freqs.weight is ", TensorTypeName(tensor->type), " ", tensor->rows,
                                   " x ", tensor->columns, "; expected F32 1 x ", pairs));
  }
  std::vector<float> factors(frequencies->size());
  DequantizeRow(*tensor, 0, factors.data());
  for (size_t pair = 0; pair < factors.size(); ++pair) {
    if (!(factors[pair] >= 1e-6f && factors[pair] <= 1e6f)) {
      return file.Error(absl::StatusCode::kInvalidArgument, absl::StrCat("tensor rope_freqs.weight[", pair, "] is ",
                                                                         factors[pair], "; allowed 1e-6 to 1e6"));
    }
    (*frequencies)[pair] /= static_cast<double>(factors[pair]);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadRope(const GgufFile& file, ModelConfig* config) {
  const std::string prefix = config->architecture + ".rope.";
  TP_ASSIGN_OR_RETURN(config->rope_dims,
                      file.IntegerOr(prefix + "dimension_count", config->head_dim, 2, config->head_dim));
  if (config->rope_dims % 2 != 0) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("key ", prefix, "dimension_count is ", config->rope_dims, "; it must be even, 2 to ",
                                   config->head_dim));
  }
  TP_ASSIGN_OR_RETURN(const double base, file.FloatOr(prefix + "freq_base", 10000, 1.001, 1e15));
  TP_ASSIGN_OR_RETURN(const Scaling scaling, ReadScaling(file, *config));
  std::vector<double> frequencies(static_cast<size_t>(config->rope_dims / 2));
  for (size_t pair = 0; pair < frequencies.size(); ++pair) {
    frequencies[pair] = std::pow(base, -2.0 * static_cast<double>(pair) / config->rope_dims);
  }
  config->rope_magnitude = 1;
  if (scaling.kind == Scaling::Kind::kLinear) {
    for (double& frequency : frequencies) frequency /= scaling.factor;
  } else if (scaling.kind == Scaling::Kind::kYarn) {
    ApplyYarn(scaling, base, config->rope_dims, &frequencies);
    const double temperature = scaling.extrapolation > 0 ? 1 + 0.1 * std::log(scaling.factor) : 1;
    config->rope_magnitude = static_cast<float>(scaling.attention_factor * temperature);
  }
  TP_RETURN_IF_ERROR(ApplyFactors(file, &frequencies));
  config->rope_frequencies.assign(frequencies.begin(), frequencies.end());
  return absl::OkStatus();
}

}  // namespace tidepool
