#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace tidepool {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  TIDEPOOL_CHECK(context_ != nullptr);
  TIDEPOOL_CHECK(EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(context_), EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(context_)); }

Sha256& Sha256::Add(const void* data, size_t size_bytes) {
  TIDEPOOL_CHECK(EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(context_), data, size_bytes) == 1);
  return *this;
}

Sha256& Sha256::AddField(std::string_view bytes) {
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(static_cast<uint64_t>(bytes.size()) >> (8 * i));
  return Add(length, sizeof(length)).Add(bytes.data(), bytes.size());
}

Sha256::Digest Sha256::Finish() {
  Digest digest;
  unsigned int size = 0;
  TIDEPOOL_CHECK(EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(context_), digest.data(), &size) == 1);
  TIDEPOOL_CHECK(size == digest.size());
  return digest;
}

}  // namespace tidepool
