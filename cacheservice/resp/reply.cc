#include "cacheservice/resp/reply.h"

#include <hiredis/read.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace tidepool {

bool RespReply::IsError(std::string_view code) const {
  return type == Type::kError && text.starts_with(code) && (text.size() == code.size() || text[code.size()] == ' ');
}

namespace {

// Errors end up in logs and on terminals.
constexpr size_t kMostErrorBytes = 512;
constexpr size_t kMostHeaderBytes = 32;  // "$", a number, line ends

void MakePrintable(std::string* text) {
  for (char& c : *text) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
}

}  // namespace

// The reply under construction. hiredis names the place of each part by the parent's object and an index in it; arrays
// get their size when they are begun, so that those objects stay where they are.
struct RespReader::Building {
  explicit Building(const RespLimits& limits) : limits(limits) {}

  void Start() {
    root = RespReply();
    text_bytes = elements = 0;
    past_limit = false;
  }

  static Building& Of(const redisReadTask* task) { return *static_cast<Building*>(task->privdata); }

  // Null (which hiredis takes for "no memory") past a limit.
  static RespReply* Place(const redisReadTask* task, RespReply::Type type) {
    Building& building = Of(task);
    RespReply* reply = &building.root;
    if (task->parent != nullptr) {
      auto& siblings = static_cast<RespReply*>(task->parent->obj)->elements;
      TIDEPOOL_CHECK(task->idx >= 0 && static_cast<size_t>(task->idx) < siblings.size());
      reply = &siblings[static_cast<size_t>(task->idx)];
    }
    reply->type = type;
    return reply;
  }

  static void* String(const redisReadTask* task, char* bytes, size_t size) {
    Building& building = Of(task);
    if (size > building.limits.reply_bytes - building.text_bytes) return building.Refuse();
    building.text_bytes += size;
    RespReply* reply = Place(task, task->type == REDIS_REPLY_STRING   ? RespReply::Type::kString
                                   : task->type == REDIS_REPLY_STATUS ? RespReply::Type::kStatus
                                                                      : RespReply::Type::kError);
    reply->text.assign(bytes, reply->type == RespReply::Type::kError ? std::min(size, kMostErrorBytes) : size);
    if (reply->type == RespReply::Type::kError) MakePrintable(&reply->text);
    return reply;
  }

  static void* Array(const redisReadTask* task, int count) {
    Building& building = Of(task);
    if (count < 0 || static_cast<size_t>(count) > building.limits.elements - building.elements)
      return building.Refuse();
    building.elements += static_cast<size_t>(count);
    RespReply* reply = Place(task, RespReply::Type::kArray);
    reply->elements.resize(static_cast<size_t>(count));
    return reply;
  }

  static void* Integer(const redisReadTask* task, long long value) {
    RespReply* reply = Place(task, RespReply::Type::kInteger);
    reply->integer = value;
    return reply;
  }

  static void* Nil(const redisReadTask* task) { return Place(task, RespReply::Type::kNil); }

  static void Free(void*) {}  // the root is a member

  void* Refuse() {
    past_limit = true;
    return nullptr;
  }

  const RespLimits limits;
  RespReply root;
  size_t text_bytes = 0;  // of the root so far
  size_t elements = 0;
  bool past_limit = false;
};

namespace {

absl::Status TooLarge(const RespLimits& limits) {
  return absl::ResourceExhaustedError(
      absl::StrCat("a reply is larger than ", limits.reply_bytes, " bytes or ", limits.elements, " elements"));
}

}  // namespace

RespReader::RespReader(const RespLimits& limits)
    : building_(std::make_unique<Building>(limits)), reader_(nullptr, redisReaderFree) {
  static redisReplyObjectFunctions functions = {
      .createString = Building::String,
      .createArray = Building::Array,
      .createInteger = Building::Integer,
      .createNil = Building::Nil,
      .freeObject = Building::Free,
  };
  reader_.reset(redisReaderCreateWithFunctions(&functions));
  TIDEPOOL_CHECK(reader_ != nullptr);
  reader_->privdata = building_.get();
  reader_->maxbuf = 0;  // keeps its buffer from one reply to the next: it is bounded here
}

RespReader::~RespReader() = default;

absl::Status RespReader::Feed(std::string_view bytes) {
  if (reader_->len - reader_->pos > building_->limits.reply_bytes + kMostHeaderBytes)
    return TooLarge(building_->limits);
  if (redisReaderFeed(reader_.get(), bytes.data(), bytes.size()) != REDIS_OK) {
    return absl::DataLossError(absl::StrCat("reply: ", reader_->errstr));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RespReply>> RespReader::Next() {
  if (reader_->ridx == -1) building_->Start();
  void* reply = nullptr;
  if (redisReaderGetReply(reader_.get(), &reply) != REDIS_OK) {
    if (building_->past_limit) return TooLarge(building_->limits);
    return absl::DataLossError(absl::StrCat("reply: ", reader_->errstr));
  }
  if (reply == nullptr) return std::nullopt;
  return std::exchange(building_->root, RespReply());
}

}  // namespace tidepool
