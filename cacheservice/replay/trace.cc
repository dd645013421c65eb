#include "cacheservice/replay/trace.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

struct CloseFile {
  void operator()(gzFile file) const { gzclose(file); }
};
using File = std::unique_ptr<gzFile_s, CloseFile>;

// Reads the next line without its end into `line`; false at the end of the file.
absl::StatusOr<bool> NextLine(gzFile file, std::vector<char>* buffer, std::string_view* line) {
  if (gzgets(file, buffer->data(), static_cast<int>(buffer->size())) == nullptr) {
    int code = Z_OK;
    const char* message = gzerror(file, &code);
    if (code == Z_OK || code == Z_STREAM_END) return false;
    return absl::InvalidArgumentError(code == Z_ERRNO ? std::strerror(errno) : message);
  }
  *line = buffer->data();
  if (line->ends_with('\n')) {
    line->remove_suffix(1);
  } else if (line->size() + 1 == buffer->size()) {
    return absl::ResourceExhaustedError(absl::StrCat("is longer than ", Trace::kMaxLineBytes, " bytes"));
  }
  return true;
}

absl::Status CheckNumber(const nlohmann::json& request, const char* field) {
  const auto found = request.find(field);
  if (found == request.end()) return absl::InvalidArgumentError(absl::StrCat(field, " is missing"));
  if (!found->is_number() || found->get<double>() < 0) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": ", found->dump(), " is not a number from 0 on"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Trace> Trace::Read(const std::string& path) {
  const File file(gzopen(path.c_str(), "rb"));
  if (file == nullptr) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  Trace trace;
  std::vector<char> buffer(kMaxLineBytes + 2);
  std::string_view line;
  for (size_t number = 1;; ++number) {
    absl::StatusOr<bool> more = NextLine(file.get(), &buffer, &line);
    absl::Status status = more.status();
    if (more.ok() && !*more) break;
    if (status.ok() && !line.empty()) status = trace.AddLine(line);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(path, ": line ", number, ": ", status.message()));
    }
  }
  return trace;
}

absl::Status Trace::AddLine(std::string_view line) {
  const nlohmann::json request = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!request.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  for (const char* field : {"timestamp", "input_length", "output_length"}) {
    TP_RETURN_IF_ERROR(CheckNumber(request, field));
  }
  const auto hash_ids = request.find("hash_ids");
  if (hash_ids == request.end()) return absl::InvalidArgumentError("hash_ids is missing");
  if (!hash_ids->is_array()) return absl::InvalidArgumentError("hash_ids is not a list");
  std::vector<uint64_t> ids;
  ids.reserve(hash_ids->size());
  for (const nlohmann::json& id : *hash_ids) {
    if (!id.is_number_unsigned()) {
      return absl::InvalidArgumentError(
          absl::StrCat("hash_ids[", ids.size(),
                       "]: ", id.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 64),
                       " is not an integer from 0 to 2^64 - 1"));
    }
    ids.push_back(id.get<uint64_t>());
  }
  return Add(ids);
}

absl::Status Trace::Add(absl::Span<const uint64_t> ids) {
  if (ends_.size() == kMaxRequests) {
    return absl::ResourceExhaustedError(absl::StrCat("is past the most requests, ", kMaxRequests));
  }
  if (ids.size() > kMaxReferences - blocks_.size()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("hash_ids: with them there are more than ", kMaxReferences, " in all"));
  }
  for (const uint64_t id : ids) blocks_.push_back(numbers_.try_emplace(id, distinct_blocks()).first->second);
  ends_.push_back(blocks_.size());
  return absl::OkStatus();
}

absl::Span<const uint32_t> Trace::Request(size_t index) const {
  const size_t begin = index == 0 ? 0 : ends_[index - 1];
  return absl::MakeConstSpan(blocks_).subspan(begin, ends_[index] - begin);
}

}  // namespace tidepool
