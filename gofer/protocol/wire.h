#pragma once

// Messages as bytes (Cap'n Proto, one segment). Whatever the bytes, decoding ends with a message
// within the bounds of messages.h or with EBADMSG.

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "gofer/protocol/messages.h"
#include "platform/base/check.h"
#include "platform/base/result.h"

namespace gofer {

// Private memory for one message under construction, or for the copy of one that arrived. Used by
// one thread at a time.
class WireBuffer {
 public:
  explicit WireBuffer(size_t bytes)
      : data_(static_cast<std::byte*>(
                  mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
              Unmap{bytes}) {
    RAVELIN_CHECK(data_.get() != MAP_FAILED);
  }
  std::span<std::byte> bytes() { return {data_.get(), data_.get_deleter().bytes}; }

 private:
  struct Unmap {
    size_t bytes;
    void operator()(std::byte* data) const { munmap(data, bytes); }
  };
  // From the host: zero pages, and only those that a message touches. calloc would write all of
  // them.
  std::unique_ptr<std::byte, Unmap> data_;
};

// Writes the message to `out` and returns its size. `scratch` must be all zero, and is so again
// afterwards. EMSGSIZE if the message does not fit in `out` or `scratch`.
base::Result<size_t> EncodeRequest(const Request& request, WireBuffer& scratch,
                                   std::span<std::byte> out);
base::Result<size_t> EncodeResponse(const Response& response, WireBuffer& scratch,
                                    std::span<std::byte> out);

// Precondition: `bytes` is aligned to 8 and nobody else can change it. The result of DecodeRequest
// points into `bytes`.
base::Result<Request> DecodeRequest(std::span<const std::byte> bytes);
base::Result<Response> DecodeResponse(std::span<const std::byte> bytes);

}  // namespace gofer
