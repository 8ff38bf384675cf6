#pragma once

#include <string>
#include <vector>

namespace runsc {

// Makes ps(1) show `arguments` as this process's command line, as far as there is room where its
// own one was: `docker top` looks from outside, and this process stands for one inside.
void ShowCommandLine(const std::vector<std::string>& arguments);

}  // namespace runsc
