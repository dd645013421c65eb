// A stretch of prompt text and whether its special tokens count. Templates are trusted, what users wrote is not:
// encoding the segments of a prompt together gives the same tokens as the joined text, but for special tokens within
// untrusted segments, which stay plain text.
#ifndef TIDEPOOL_WORKER_MODEL_TEXT_SEGMENT_H_
#define TIDEPOOL_WORKER_MODEL_TEXT_SEGMENT_H_

#include <string>

namespace tidepool {

struct TextSegment {
  std::string text;
  bool parse_special = false;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_TEXT_SEGMENT_H_
