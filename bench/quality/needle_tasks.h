// Contexts with facts in them and questions about the facts, in the form of tests/data/quality/needles.json:
//
//   single    one number for a city, somewhere in licence paragraphs
//   multi     four of them; each question asks for one
//   kv        nothing but records "Record 48213: 77120"; four are asked for
//   tracking  a variable has a number, others are set to one another; three questions follow the chain
//
// The same arguments give the same tasks on every machine.
#ifndef TIDEPOOL_BENCH_QUALITY_NEEDLE_TASKS_H_
#define TIDEPOOL_BENCH_QUALITY_NEEDLE_TASKS_H_

#include <string>
#include <utility>
#include <vector>

#include "worker/model/tokenizer.h"

namespace tidepool::quality {

struct NeedleTask {
  std::string context;                                         // a finished turn
  std::vector<std::pair<std::string, std::string>> questions;  // next turn up to the answer, answer
};

std::vector<NeedleTask> ReadNeedleTasks(const std::string& path);

// `count` tasks whose contexts have at most `tokens` tokens, as near to it as words allow. haystack: paragraphs. kind
// is one of those above.
std::vector<NeedleTask> MakeNeedleTasks(const std::string& kind, int tokens, int count,
                                        const std::vector<std::string>& haystack, const Tokenizer& tokenizer);

// Paragraphs of a text, each in one line, without those of up to 40 characters (headings).
std::vector<std::string> Paragraphs(const std::string& text);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_NEEDLE_TASKS_H_
