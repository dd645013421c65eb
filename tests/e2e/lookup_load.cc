#include "tests/e2e/lookup_load.h"

#include <nlohmann/json.hpp>

#include "tests/support/paths.h"

namespace tidepool::test {
namespace {

struct Case {
  std::vector<int32_t> context;
  std::vector<int32_t> questions;
};

// The shortest of the lookup model's.
const Case& TheCase() {
  static const Case shortest = [] {
    Case best;
    for (const nlohmann::json& read : nlohmann::json::parse(ReadFile(ReferencePath("lookup_model/cases.json")))) {
      Case one;
      one.context = read["context_ids"].get<std::vector<int32_t>>();
      for (const nlohmann::json& question : read["questions"]) one.questions.push_back(question[0].get<int32_t>());
      if (best.context.empty() || one.context.size() < best.context.size()) best = one;
    }
    return best;
  }();
  return shortest;
}

}  // namespace

v1::GenerateRequest LookupTurn::Request() const {
  v1::GenerateRequest request;
  google::protobuf::RepeatedField<int32_t>& ids = *request.mutable_token_ids()->mutable_ids();
  if (turn == 0 || session.empty()) {
    const std::vector<int32_t>& all = TheCase().context;
    // What makes it differ stands in its first block.
    ids.Add(all.begin(), all.begin() + 1);
    ids.Add(all.begin() + 1 + context, all.begin() + 9 + context);
    ids.Add(all.begin() + 1, all.end());
  }
  if (turn > 0) {
    const auto questions = static_cast<int>(TheCase().questions.size());
    ids.Add(TheCase().questions[static_cast<size_t>((context * 7 + turn) % questions)]);
  }
  request.set_session_id(session);
  if (!session.empty()) request.set_session_turns(turn);
  request.mutable_stop()->set_max_tokens(tokens);
  request.mutable_stop()->set_ignore_eos(true);
  v1::CompressionParams& compression = *request.mutable_compression();
  compression.set_preset(policy == LookupPolicy::kFull ? "full" : "snapkv");
  if (policy == LookupPolicy::kFull) return request;
  compression.set_budget_fraction(0.2);
  if (policy == LookupPolicy::kSnapKv) return request;
  compression.mutable_recall()->set_mode(policy == LookupPolicy::kSnapKvSync ? v1::RECALL_MODE_SYNC
                                                                             : v1::RECALL_MODE_ASYNC);
  compression.mutable_recall()->set_on_loss(policy == LookupPolicy::kSnapKvSync ? v1::ON_RECALL_LOSS_RECOMPUTE
                                                                                : v1::ON_RECALL_LOSS_CONTINUE);
  return request;
}

LookupAnswer Ask(GenerationClient& client, const LookupTurn& turn, absl::Time deadline) {
  LookupAnswer answer;
  const absl::StatusOr<v1::Finished> finished = client.Generate(
      turn.Request(),
      [&](const v1::GenerateResponse& response) {
        answer.ids.insert(answer.ids.end(), response.tokens().ids().begin(), response.tokens().ids().end());
      },
      deadline);
  answer.status = finished.status();
  if (finished.ok()) answer.usage = finished->usage();
  return answer;
}

}  // namespace tidepool::test
