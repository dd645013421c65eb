// Little-endian fields in a string, for states that we store and read back ourselves. A reader never runs past the end:
// after the first short read it fails for good, so callers check once, at the end.
#ifndef TIDEPOOL_BASE_BYTES_H_
#define TIDEPOOL_BASE_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace tidepool {

class ByteWriter {
 public:
  template <typename T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void PutBytes(std::string_view value) {
    Put<uint64_t>(value.size());
    bytes_.append(value);
  }
  template <typename T>
  void PutVector(const std::vector<T>& values) {
    static_assert(std::is_arithmetic_v<T>);
    PutBytes({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
  }
  std::string Take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Get() {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    T value{};
    if (bytes_.size() < sizeof value) {
      ok_ = false;
      bytes_ = {};
      return value;
    }
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }
  std::string_view GetBytes() {
    const uint64_t size = Get<uint64_t>();
    if (size > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    const std::string_view value = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return value;
  }
  template <typename T>
  std::vector<T> GetVector() {
    const std::string_view raw = GetBytes();
    if (raw.size() % sizeof(T) != 0) ok_ = false;
    std::vector<T> values(raw.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), raw.data(), values.size() * sizeof(T));
    return values;
  }
  // Everything read so far was there.
  bool ok() const { return ok_; }
  // ok() and nothing is left.
  bool done() const { return ok_ && bytes_.empty(); }
  size_t left() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_BYTES_H_
