#include "client/cli/answer_printer.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "client/cli/cli.h"

namespace tidepool::cli {

void AnswerPrinter::OnEvent(const v1::GenerateResponse& response) {
  if (Json()) PrintJson(response);
  if (response.has_progress() && !Json() && isatty(STDERR_FILENO)) {
    std::fprintf(stderr, "\rreading the prompt: %lld of %lld tokens\033[K",
                 static_cast<long long>(response.progress().prefilled_tokens()),
                 static_cast<long long>(response.progress().prompt_tokens()));
    progress_shown_ = true;
  }
  if (!response.has_tokens()) return;
  const std::string& text = response.tokens().text();
  text_ += text;
  if (Json()) return;
  ClearProgress();
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void AnswerPrinter::OnFinished(const v1::Finished& finished) {
  if (Json()) {
    v1::GenerateResponse last;
    *last.mutable_finished() = finished;
    PrintJson(last);
    return;
  }
  OnBroken();
  std::fprintf(stderr, "[%s]\n", Summary(finished.usage()).c_str());
}

void AnswerPrinter::OnBroken() {
  if (Json()) return;
  ClearProgress();
  if (!text_.empty() && text_.back() != '\n') std::printf("\n");
  std::fflush(stdout);
}

void AnswerPrinter::ClearProgress() {
  if (progress_shown_) std::fprintf(stderr, "\r\033[K");
  progress_shown_ = false;
}

std::string Summary(const v1::Usage& usage) {
  const double decode_seconds = usage.total_seconds() - usage.time_to_first_token_seconds();
  std::string line = absl::StrFormat(
      "%d prompt tokens (%d not computed again), %d generated, first after %.2f s, %.1f tokens/s; on the device %s of "
      "%s (%.0f %%)",
      usage.prompt_tokens(), usage.cached_prompt_tokens(), usage.generated_tokens(),
      usage.time_to_first_token_seconds(),
      usage.generated_tokens() > 1 && decode_seconds > 0
          ? (static_cast<double>(usage.generated_tokens()) - 1) / decode_seconds
          : 0.0,
      FormatByteSize(usage.resident_kv_bytes()), FormatByteSize(usage.full_kv_bytes()),
      usage.full_kv_bytes() > 0
          ? 100.0 * static_cast<double>(usage.resident_kv_bytes()) / static_cast<double>(usage.full_kv_bytes())
          : 0.0);
  if (usage.slow_prompt_tokens() > 0) {
    absl::StrAppend(&line, "; ", usage.slow_prompt_tokens(), " prompt tokens were stored and computed faster");
  }
  if (usage.index_bytes() > 0) {
    absl::StrAppend(&line, ", and an index of ", FormatByteSize(usage.index_bytes()),
                    usage.index_on_device() ? " there" : " in host memory");
  }
  if (usage.budget_exceeded())
    absl::StrAppend(&line, "; budget of ", FormatByteSize(usage.budget_bytes()), " exceeded");
  if (usage.evicted_rows() > 0) absl::StrAppend(&line, "; rows evicted ", usage.evicted_rows());
  if (usage.merged_rows() > 0) absl::StrAppend(&line, ", merged ", usage.merged_rows());
  if (usage.recalled_rows() > 0) absl::StrAppend(&line, ", recalled ", usage.recalled_rows());
  if (usage.late_rows() > 0) absl::StrAppend(&line, ", late ", usage.late_rows());
  if (usage.degraded()) absl::StrAppend(&line, "; DEGRADED: ", usage.lost_rows(), " rows could not be recalled");
  if (usage.recomputations() > 0)
    absl::StrAppend(&line, "; computed again ", usage.recomputations(), " times, since rows were lost");
  return line;
}

}  // namespace tidepool::cli
