#include "bench/quality/texts.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/limits.h"
#include "bench/quality/divergence.h"
#include "bench/quality/or_die.h"

namespace tidepool::quality {
namespace {

constexpr int kScoredTokens = 128, kGreedyTokens = 64;

}  // namespace

TextSuite::TextSuite(BenchEngine* engine, const std::vector<std::string>& files, bool divergence)
    : engine_(engine), divergence_(divergence) {
  for (const std::string& file : files) texts_.push_back(engine->tokenizer().Encode(ReadAll(file), false, false));
}

void TextSuite::MeasureOne(const Setting& setting, int text, int length, Sums& sums, Cost& cost) {
  const std::vector<int32_t>& ids = texts_[text];
  const auto end_of_context = ids.begin() + (length - kScoredTokens);
  // The last token of the context is the next turn's, which needs one.
  const SessionManifest context = engine_->Compress({ids.begin(), end_of_context - 1}, setting.spec);
  GenerationRequest next;
  next.compression = setting.spec;
  next.prompt = {*(end_of_context - 1)};
  next.logprobs = kMaxLogprobs;
  next.forced_tokens.assign(end_of_context, end_of_context + kScoredTokens);
  const test::Answer continued = engine_->Continue(context, next);
  cost.Add(continued.result.usage, 1);
  double nll = 0;
  for (const TokenLogprob& l : continued.logprobs) nll -= l.logprob;
  nll /= kScoredTokens;

  const bool is_full = setting.preset == "full";
  Reference& reference = references_[{text, length}];
  if (is_full) {
    reference.nll = nll;
    reference.continuation = continued.logprobs;
  } else if (reference.continuation.empty()) {
    Die("text: the full cache must be measured first");
  }
  sums.nll += nll;
  sums.loss += nll - reference.nll;
  sums.losses.push_back(nll - reference.nll);
  ++sums.texts;
  if (divergence_) {
    double kl = 0;
    for (int i = 0; i < kScoredTokens; ++i) {
      kl += KlLowerBound(reference.continuation[i], continued.logprobs[i]) / kScoredTokens;
    }
    sums.kls.push_back(kl);
    sums.kl += kl;
    next.forced_tokens = reference.greedy;
    next.stop.max_tokens = kGreedyTokens;
    next.stop.ignore_eos = true;
    next.logprobs = 1;
    const test::Answer written = engine_->Continue(context, next);
    if (is_full) reference.greedy = written.tokens;
    const Agreement agreement = Agree(reference.greedy, written.logprobs);
    sums.agree += static_cast<double>(agreement.same) / kGreedyTokens;
    sums.prefix += agreement.before_first_difference;
    cost.Add(written.result.usage, 1);
  }
  engine_->Forget(context.session_id);
}

std::vector<Cell> TextSuite::Measure(const Setting& setting, int length) {
  const absl::Time begin = absl::Now();
  Cell text;
  text.setting = setting;
  text.suite = "text";
  text.length = length;
  Sums sums;
  for (size_t i = 0; i < texts_.size(); ++i) {
    if (static_cast<int>(texts_[i].size()) < length || length <= kScoredTokens + 1) continue;
    MeasureOne(setting, static_cast<int>(i), length, sums, text.cost);
  }
  if (sums.texts == 0) Die(absl::StrCat("text: no text has ", length, " tokens, or they are too few"));
  const double n = sums.texts;
  text.metrics = {
      {"texts", n}, {"nll", sums.nll / n}, {"loss", sums.loss / n}, {"loss_error", StandardError(sums.losses)}};
  text.items = sums.losses;
  text.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  if (!divergence_) return {text};
  Cell divergence = text;
  divergence.items = sums.kls;
  divergence.suite = "divergence";
  divergence.metrics = {{"texts", n}, {"kl", sums.kl / n}, {"agree", sums.agree / n}, {"prefix", sums.prefix / n}};
  return {text, divergence};
}

}  // namespace tidepool::quality
