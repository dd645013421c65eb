#include "bench/quality/needle_tasks.h"

#include <gtest/gtest.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "bench/quality/or_die.h"
#include "tests/support/paths.h"
#include "worker/model/model.h"

namespace tidepool::quality {
namespace {

int Occurrences(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

class NeedleTasksTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = OrDie(Model::Load(test::ModelPath("SmolLM2-135M-Instruct.Q4_1.gguf")));
    haystack_ = Paragraphs(ReadAll(TIDEPOOL_SOURCE_DIR "/tests/data/quality/gpl-3.txt"));
  }
  static void TearDownTestSuite() { model_.reset(); }
  static inline std::shared_ptr<const Model> model_;
  static inline std::vector<std::string> haystack_;
};

TEST_F(NeedleTasksTest, ContextsAreAsLongAsAskedForAndHoldEachAnswerOnce) {
  const struct {
    const char* kind;
    size_t questions;
  } kinds[] = {{"single", 1}, {"multi", 4}, {"kv", 4}, {"tracking", 3}};
  for (const auto& [kind, questions] : kinds) {
    const std::vector<NeedleTask> tasks = MakeNeedleTasks(kind, 1016, 2, haystack_, model_->tokenizer());
    ASSERT_EQ(tasks.size(), 2u);
    for (const NeedleTask& task : tasks) {
      const auto tokens = model_->tokenizer().Encode(task.context, true, false).size();
      EXPECT_LE(tokens, 1016u) << kind;
      EXPECT_GE(tokens, 980u) << kind;
      EXPECT_EQ(task.questions.size(), questions) << kind;
      for (const auto& [question, answer] : task.questions) {
        EXPECT_EQ(answer.size(), 5u);
        EXPECT_EQ(Occurrences(task.context, answer), 1) << kind << ": " << answer;
        EXPECT_EQ(question.find(answer), std::string::npos);
        EXPECT_EQ(question.back(), ' ');
        EXPECT_EQ(model_->tokenizer().Encode(answer, false, false).size(), 5u);
        std::vector<int32_t> apart = model_->tokenizer().Encode(question, true, false);
        for (int32_t id : model_->tokenizer().Encode(answer, false, false)) apart.push_back(id);
        EXPECT_EQ(model_->tokenizer().Encode(absl::StrCat(question, answer), true, false), apart);
      }
    }
    EXPECT_NE(tasks[0].context, tasks[1].context);
  }
}

TEST_F(NeedleTasksTest, TheSameArgumentsGiveTheSameTasks) {
  for (const char* kind : {"single", "multi", "kv", "tracking"}) {
    const std::vector<NeedleTask> a = MakeNeedleTasks(kind, 500, 1, haystack_, model_->tokenizer());
    const std::vector<NeedleTask> b = MakeNeedleTasks(kind, 500, 1, haystack_, model_->tokenizer());
    EXPECT_EQ(a[0].context, b[0].context);
    EXPECT_EQ(a[0].questions, b[0].questions);
  }
}

TEST(ParagraphsTest, AreUnwrappedAndHeadingsAreLeftOut) {
  const std::string first(30, 'a'), second(30, 'b');
  EXPECT_EQ(Paragraphs(absl::StrCat("Heading\n\n  ", first, "\n", second, "  \n\n\n", second, " ", first)),
            (std::vector<std::string>{first + " " + second, second + " " + first}));
}

}  // namespace
}  // namespace tidepool::quality
