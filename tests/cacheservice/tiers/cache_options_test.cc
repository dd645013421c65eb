#include "cacheservice/tiers/cache_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

using testing::AllOf;
using testing::HasSubstr;

CacheOptions Valid() {
  CacheOptions options;
  options.data_dir = "/data";
  return options;
}

TEST(CacheOptionsTest, DefaultsWithADirectoryAreValid) { EXPECT_EQ(Valid().Validate(), absl::OkStatus()); }

TEST(CacheOptionsTest, ADirectoryMustBeNamed) {
  CacheOptions options = Valid();
  options.data_dir.clear();
  EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("data_dir is empty"));
  options.data_dir = std::string("a\0b", 3);
  EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("data_dir holds a zero byte"));
}

TEST(CacheOptionsTest, AMemoryPolicyIsOneOfThoseThereAre) {
  for (const char* name : {"chain", "lru", "sieve"}) {
    CacheOptions options = Valid();
    options.memory_policy = name;
    EXPECT_EQ(options.Validate(), absl::OkStatus()) << name;
  }
  CacheOptions options = Valid();
  options.memory_policy = "random";
  EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("memory_policy 'random' is not one of chain"));
}

TEST(CacheOptionsTest, ATimeOnDiskIsNoneOrASecondToTenYears) {
  CacheOptions options = Valid();
  for (const absl::Duration ttl : {absl::ZeroDuration(), absl::Seconds(1), absl::Hours(87'600)}) {
    options.disk_ttl = ttl;
    EXPECT_EQ(options.Validate(), absl::OkStatus()) << ttl;
  }
  for (const absl::Duration ttl : {absl::Milliseconds(999), -absl::Hours(1), absl::Hours(87'601)}) {
    options.disk_ttl = ttl;
    EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument) << ttl;
    EXPECT_THAT(std::string(options.Validate().message()),
                AllOf(HasSubstr("disk_ttl"), HasSubstr("is not 0 or in 1s to 87600h")));
  }
}

// One number of CacheOptions with the ends of its range, written as they must appear in a message.
struct Field {
  std::string name;
  std::function<void(CacheOptions&, uint64_t)> set;
  uint64_t least, most;
};

const std::vector<Field>& Fields() {
  static const auto* fields = new std::vector<Field>{
      {"memory_bytes", [](CacheOptions& o, uint64_t v) { o.memory_bytes = v; }, 262144, 17592186044416},
      {"disk_bytes", [](CacheOptions& o, uint64_t v) { o.disk_bytes = v; }, 16777216, 1125899906842624},
      {"manifest_bytes", [](CacheOptions& o, uint64_t v) { o.manifest_bytes = v; }, 1048576, 17592186044416},
      // Of a memory tier of 1 GiB, the default.
      {"demotion_queue_bytes", [](CacheOptions& o, uint64_t v) { o.demotion_queue_bytes = v; }, 262144, 536870912},
      {"write_behind_bytes", [](CacheOptions& o, uint64_t v) { o.write_behind_bytes = v; }, 262144, 17179869184},
      {"recall_threads", [](CacheOptions& o, uint64_t v) { o.recall_threads = static_cast<int>(v); }, 1, 64},
  };
  return *fields;
}

TEST(CacheOptionsTest, TheEndsOfEachRangeAreValid) {
  for (const Field& field : Fields()) {
    for (const uint64_t value : {field.least, field.most}) {
      CacheOptions options = Valid();
      field.set(options, value);
      EXPECT_EQ(options.Validate(), absl::OkStatus()) << field.name;
    }
  }
}

TEST(CacheOptionsTest, ANumberPastItsRangeIsRefusedByNameValueAndRange) {
  for (const Field& field : Fields()) {
    for (const uint64_t value : {field.least - 1, field.most + 1}) {
      CacheOptions options = Valid();
      field.set(options, value);
      const absl::Status status = options.Validate();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field.name << " " << value;
      EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(field.name), HasSubstr(absl::StrCat(" ", value, " ")),
                                                       HasSubstr(absl::StrCat(field.least, " to ", field.most))));
    }
  }
}

TEST(CacheOptionsTest, NegativeRecallThreadsAreRefused) {
  CacheOptions options = Valid();
  options.recall_threads = -1;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("recall_threads -1 is not in 1 to 64"));
}

TEST(CacheOptionsTest, TheDemotionQueueIsAnEighthOfMemoryUnlessThatIsExtreme) {
  CacheOptions options = Valid();
  const auto with_memory = [&options](uint64_t bytes) {
    options.memory_bytes = bytes;
    return options.EffectiveDemotionQueueBytes();
  };
  EXPECT_EQ(with_memory(80 << 20), uint64_t{10} << 20);
  EXPECT_EQ(with_memory(uint64_t{16} << 30), uint64_t{64} << 20) << "at most";
  EXPECT_EQ(with_memory(1 << 20), uint64_t{256} << 10) << "room for a few values";
  EXPECT_EQ(with_memory(256 << 10), uint64_t{128} << 10) << "never more than half";
  options.demotion_queue_bytes = 300 << 10;
  EXPECT_EQ(with_memory(1 << 20), uint64_t{300} << 10) << "what was asked for";
}

}  // namespace
}  // namespace tidepool
