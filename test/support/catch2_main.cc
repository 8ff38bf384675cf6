// main() of every Catch2 program. Catch2 exits with the number of failures; CTest wants to tell
// "failed" (1) from "cannot run here" (77), and 77 failures must not look like a skip.

#define CATCH_CONFIG_RUNNER
#include "catch2/catch.hpp"

int main(int argc, char** argv) { return Catch::Session().run(argc, argv) == 0 ? 0 : 1; }
