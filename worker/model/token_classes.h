// Which tokens of a vocabulary are special and which are punctuation, for policies that keep such tokens (FastGen).
#ifndef TIDEPOOL_WORKER_MODEL_TOKEN_CLASSES_H_
#define TIDEPOOL_WORKER_MODEL_TOKEN_CLASSES_H_

#include <string_view>
#include <vector>

#include "policies/retain/token_class.h"

namespace tidepool {

class Tokenizer;

// Of the text that a token stands for. Punctuation: at least one mark, and nothing else but white space. A line break
// is a mark: models of code gather what a line says at its end (AnchorCoder, arXiv 2411.06680).
TokenClass ClassOfText(std::string_view text);
// By token id: what the tokenizer calls special, else by its text.
std::vector<TokenClass> ClassesOfVocabulary(const Tokenizer& tokenizer);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_TOKEN_CLASSES_H_
