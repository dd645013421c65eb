#include "client/cli/inspect_run.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/rpc/convert.h"

namespace tidepool::cli {
namespace {

class Answer : public GenerationSink {
 public:
  void OnTokens(TokenDelta delta) override {
    MutexLock lock(&mutex_);
    tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
    text_ += delta.text;
  }
  void OnFinished(GenerationResult result) override {
    MutexLock lock(&mutex_);
    result_ = std::move(result);
    finished_ = true;
    changed_.SignalAll();
  }
  GenerationResult Wait() {
    MutexLock lock(&mutex_);
    while (!finished_) changed_.Wait(&mutex_);
    return result_;
  }
  std::vector<int32_t> tokens() const {
    MutexLock lock(&mutex_);
    return tokens_;
  }
  std::string text() const {
    MutexLock lock(&mutex_);
    return text_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  GenerationResult result_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mutex_);
  std::string text_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<GenerationRequest> Turn(const Model& model, const InspectedText& text, const std::string& content,
                                       const InspectedPolicy& policy, const std::string& session) {
  if (text.chat_template) {
    v1::ChatRequest request;
    v1::ChatMessage& message = *request.add_messages();
    message.set_role("user");
    message.set_content(content);
    *request.mutable_compression() = policy.compression;
    request.set_session_id(session);
    return RequestFrom(request, model);
  }
  v1::GenerateRequest request;
  request.set_text(content);
  *request.mutable_compression() = policy.compression;
  request.set_session_id(session);
  return RequestFrom(request, model.tokenizer());
}

}  // namespace

absl::StatusOr<Inspection> Inspect(Engine& engine, const KvLayout& layout, const InspectedText& text,
                                   const InspectedPolicy& policy, const v1::SamplingParams& sampling,
                                   const v1::StopParams& stop, absl::Time deadline) {
  const Model& model = engine.model();
  const auto trace = std::make_shared<RetentionTrace>(layout, model.config().heads, kInspectedQueries);
  Inspection inspection;
  inspection.label = policy.label;
  inspection.trace = trace;
  auto run = [&](GenerationRequest request, bool answers) -> absl::Status {
    request.reuse_prefix = false;  // the trace sees every token computed
    request.observer = trace;
    request.deadline = deadline;
    request.sampling = SamplingFrom(sampling);
    request.stop = StopFrom(stop);
    if (!answers) request.stop.max_tokens = 0;
    inspection.spec = request.compression;
    const auto answer = std::make_shared<Answer>();
    TP_RETURN_IF_ERROR(engine.Submit(std::move(request), answer).status());
    const GenerationResult result = answer->Wait();
    TP_RETURN_IF_ERROR(result.status);
    if (result.reason == FinishReason::kDeadline) return absl::DeadlineExceededError("--timeout: the time is up");
    inspection.generated = answer->tokens();
    inspection.answer = answer->text();
    inspection.reason = result.reason;
    inspection.usage = result.usage;
    inspection.recalled_rows += result.usage.recalled_rows;
    inspection.late_rows += result.usage.late_rows;
    inspection.lost_rows += result.usage.lost_rows;
    return absl::OkStatus();
  };
  auto turns = [&]() -> absl::Status {
    const bool asks = !text.question.empty();
    const std::string session = asks ? "inspect" : "";
    TP_ASSIGN_OR_RETURN(GenerationRequest first, Turn(model, text, text.prompt, policy, session));
    inspection.prompt = first.prompt;
    if (!asks) return run(std::move(first), /*answers=*/true);
    TP_RETURN_IF_ERROR(run(std::move(first), /*answers=*/false));
    TP_ASSIGN_OR_RETURN(GenerationRequest second, Turn(model, text, text.question, policy, session));
    inspection.question = second.continuation.empty() ? second.prompt : second.continuation;
    return run(std::move(second), /*answers=*/true);
  };
  const absl::Status status = turns();
  if (!text.question.empty()) {
    const auto ended = std::make_shared<Answer>();
    engine.EndSession({"inspect"}, [ended](absl::Status) { ended->OnFinished({}); });
    ended->Wait();
  }
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(policy.label, ": ", status.message()));
  // A session's turn leaves out what the last one ended with; ours ends with a prompt.
  const int64_t known =
      static_cast<int64_t>(inspection.prompt.size() + inspection.question.size() + inspection.generated.size());
  TIDEPOOL_CHECK(trace->tokens() <= known);
  return inspection;
}

}  // namespace tidepool::cli
