#pragma once

// Open descriptors on their way from the gofer to the sentry: one SCM_RIGHTS message each, tagged
// with the id of the request that asked for it, sent before the response says so.

#include <cstdint>

#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer {

struct Donation {
  uint32_t request_id = 0;
  base::Fd fd;
};

// Never blocks. EAGAIN if the peer leaves too many uncollected.
base::Result<void> SendDonation(int socket, uint32_t request_id, int fd);

// Never blocks. EAGAIN if there is none; EPIPE if the peer has gone; EBADMSG if it sent something
// else than one descriptor and a tag (whatever came with it is closed). A donation without a
// descriptor is one that this process had no number left for (EMFILE).
base::Result<Donation> ReceiveDonation(int socket);

}  // namespace gofer
