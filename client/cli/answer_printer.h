// An answer on the terminal, or as JSON for scripts.
#ifndef TIDEPOOL_CLIENT_CLI_ANSWER_PRINTER_H_
#define TIDEPOOL_CLIENT_CLI_ANSWER_PRINTER_H_

#include <string>

#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

// Shows one answer as it comes: with --json every response as a line, else the text on stdout, ended by a newline if it
// does not end with one, and, where stderr is a terminal, the progress of the prompt there.
class AnswerPrinter {
 public:
  void OnEvent(const v1::GenerateResponse& response);
  // Then the summary goes to stderr.
  void OnFinished(const v1::Finished& finished);
  // The answer ended early.
  void OnBroken();
  const std::string& text() const { return text_; }

 private:
  void ClearProgress();

  std::string text_;
  bool progress_shown_ = false;
};

// One line for people: tokens, speed, what is on the device.
std::string Summary(const v1::Usage& usage);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_ANSWER_PRINTER_H_
