#pragma once

// Which socket options a guest of --network=host may read and set on a socket of the host. What is
// not listed is ENOPROTOOPT, as for a protocol that does not know it: options that load programs,
// name devices or descriptors, or reach beyond the socket stay out.

namespace gofer::network {

bool MayGetOption(int level, int name);
bool MaySetOption(int level, int name);

}  // namespace gofer::network
