# The project's build rules: one static library per directory, tests beside them, all with the same flags.
include_guard()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS ON)  # Statement expressions (TRY).
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(RAVELIN_CCACHE ccache)
if(RAVELIN_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${RAVELIN_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${RAVELIN_CCACHE})
endif()

set(RAVELIN_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Werror)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${RAVELIN_WARNINGS}>" -fstack-protector-strong)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wthread-safety;-Wthread-safety-beta>")
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  add_compile_definitions(_FORTIFY_SOURCE=2)
endif()
add_compile_definitions(_GLIBCXX_ASSERTIONS)
include_directories("${CMAKE_SOURCE_DIR}" "${CMAKE_BINARY_DIR}")

find_program(RAVELIN_MOLD mold)
if(RAVELIN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

find_package(absl REQUIRED)
find_package(Threads REQUIRED)

# ravelin_library(name SRCS a.cc ... DEPS x y): a static library of this directory's files.
function(ravelin_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SRCS})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS})
endfunction()

# ravelin_interface(name DEPS x y): headers only.
function(ravelin_interface name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  add_library(${name} INTERFACE)
  target_link_libraries(${name} INTERFACE ${ARG_DEPS})
endfunction()

# ravelin_executable(name SRCS a.cc DEPS x): one of the product's static executables.
function(ravelin_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  if(NOT RAVELIN_SANITIZE)
    target_link_options(${name} PRIVATE -static)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
endfunction()

# ravelin_test(name SRCS a_test.cc DEPS x): a Catch2 unit test program, one CTest entry.
function(ravelin_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} catch2_main)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS unit)
endfunction()
