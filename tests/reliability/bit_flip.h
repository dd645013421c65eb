// One bit of a stored or sent value, chosen by a seeded generator.
#ifndef TIDEPOOL_TESTS_RELIABILITY_BIT_FLIP_H_
#define TIDEPOOL_TESTS_RELIABILITY_BIT_FLIP_H_

#include <cstddef>
#include <ostream>
#include <random>
#include <string>
#include <string_view>

#include "policies/kv/block_codec.h"

namespace tidepool::test {

struct BitFlip {
  size_t byte = 0;
  int bit = 0;

  BitFlip() = default;
  // In the header and what follows it of checksums every other time, which are a small part of the bytes; else
  // anywhere.
  BitFlip(std::string_view value, std::mt19937* random) {
    const size_t front = kBlockHeaderBytes + value.size() / 20;
    byte = (*random)() % ((*random)() % 2 == 0 ? front : value.size());
    bit = static_cast<int>((*random)() % 8);
  }
  void Apply(std::string* value, size_t at = 0) const {
    (*value)[at + byte] = static_cast<char>((*value)[at + byte] ^ (1 << bit));
  }
  friend std::ostream& operator<<(std::ostream& out, const BitFlip& flip) {
    return out << "bit " << flip.bit << " of byte " << flip.byte;
  }
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_BIT_FLIP_H_
