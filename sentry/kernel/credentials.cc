#include "sentry/kernel/credentials.h"

#include <algorithm>

namespace sentry {

bool Credentials::InGroup(uint32_t group) const {
  return group == fsgid || std::binary_search(groups.begin(), groups.end(), group);
}

CredentialsRef RootCredentials() {
  auto credentials = std::make_shared<Credentials>();
  credentials->permitted = credentials->effective = kAllCapabilities;
  return credentials;
}

}  // namespace sentry
