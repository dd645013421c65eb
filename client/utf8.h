// Text fields of the protocol are UTF-8; gRPC drops a message whose text is not, without saying which.
#ifndef TIDEPOOL_CLIENT_UTF8_H_
#define TIDEPOOL_CLIENT_UTF8_H_

#include <cstddef>
#include <string_view>

namespace tidepool::client {

// Length of the longest prefix that is UTF-8 as Unicode table 3-7 has it: no overlong forms, no surrogates.
inline size_t ValidUtf8Prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const auto byte = [&](size_t i) -> unsigned {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
    };
    const unsigned first = byte(0);
    size_t length = 0;
    unsigned low = 0x80, high = 0xBF;  // allowed second bytes
    if (first < 0x80) {
      length = 1;
    } else if (first >= 0xC2 && first <= 0xDF) {
      length = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      length = 3;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      length = 4;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return at;
    }
    for (size_t i = 1; i < length; ++i) {
      if (byte(i) < low || byte(i) > high) return at;
      low = 0x80, high = 0xBF;
    }
    at += length;
  }
  return at;
}

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_UTF8_H_
