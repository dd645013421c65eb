// Learns, while it is used, how soon blocks are referenced again, and from that what holding on to one is worth.
//
// A block is of a class: how often it has been referenced, and how many blocks its last request added to its chain. For
// each class and age (references to any block since the last one to this) the model counts returns and time waited;
// their ratio is the hazard rate. Where little was seen a rate leans on that of all classes at that age, as much higher
// or lower as the class was at the age before; and the rate of all classes on falling off as 1 / age, which by itself
// would be LRU.
//
// What counts is not the rate now: a person who reads and thinks does not return at once. Worth is the best ratio of
// expected returns to expected time held over all ages at which to give up (the index of Gittins, "Bandit processes and
// dynamic allocation indices", 1979; LHD, Beckmann et al., NSDI 2018, ranks by hits over time held with one horizon).
// Not thread-safe. Some 50 KB.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REUSE_MODEL_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REUSE_MODEL_H_

#include <array>
#include <cstdint>

namespace tidepool {

class ReuseModel {
 public:
  static constexpr int kClasses = 64;

  ReuseModel();

  // `references` from 1 on; `new_blocks` from 0 on.
  static uint8_t ClassOf(uint32_t references, uint32_t new_blocks);

  // A block of the class was waiting from one age to another.
  void Waited(uint8_t cls, uint64_t from_age, uint64_t to_age);
  // It was referenced again at this age; what it waited is counted besides.
  void Returned(uint8_t cls, uint64_t age);
  // Works a part of what was counted into the worths; kClasses calls work in all of it, and then it fades.
  void Learn();

  // Ranks by expected returns for each reference's time that a block of this class and age is held. What differs by
  // less than a fifth ranks the same: so near each other, counts are mostly chance.
  int Rank(uint8_t cls, uint64_t age) const;

 private:
  static constexpr int kAges = 64;  // buckets, two to an octave
  using Row = std::array<float, kAges>;

  static int BucketOf(uint64_t age);
  void LearnShape();
  void LearnClass(int cls);

  std::array<Row, kClasses> returns_{};
  std::array<Row, kClasses> waited_{};
  std::array<Row, kClasses> worth_{};  // at the first age of each bucket
  Row shape_{};                        // hazard rate of all classes together
  int next_ = 0;                       // class to be learned
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REUSE_MODEL_H_
