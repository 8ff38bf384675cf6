#pragma once

#include <string>

namespace runsc {

// `features`: what this runtime supports, as the runtime specification's features.json.
std::string FeaturesJson();

}  // namespace runsc
