// SHA-256 (OpenSSL), for block keys and model fingerprints.
#ifndef TIDEPOOL_BASE_SHA256_H_
#define TIDEPOOL_BASE_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tidepool {

// Incremental: Add... then Finish once.
class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& Add(const void* data, size_t size_bytes);
  // Adds the length (8 bytes, little endian) before the bytes, so that neighbouring fields cannot run into one another.
  Sha256& AddField(std::string_view bytes);
  Digest Finish();

 private:
  void* context_;  // EVP_MD_CTX
};

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_SHA256_H_
