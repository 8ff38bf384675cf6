# The project's build rules: one static library per directory, tests beside them, all with the same flags.
#
# What the rest of the tree uses:
#   ravelin_library      one directory's files
#   ravelin_interface    a directory of headers
#   ravelin_executable   one of the product's static executables (build/bin)
#   ravelin_test         a Catch2 unit test program
#   ravelin_guest_test   a program that must behave the same natively and in the sandbox
include_guard()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS ON)  # Statement expressions (TRY).
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Debug CACHE STRING "" FORCE)
endif()

# Sanitizers for everything, e.g. -DRAVELIN_SANITIZE=address,undefined. Empty: none.
set(RAVELIN_SANITIZE "" CACHE STRING "comma-separated list of sanitizers")

# ccache: the two settings make precompiled headers and several checkouts share one cache.
find_program(RAVELIN_CCACHE ccache)
if(RAVELIN_CCACHE)
  set(RAVELIN_LAUNCHER ${CMAKE_COMMAND} -E env "CCACHE_SLOPPINESS=pch_defines,time_macros"
      "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}" ${RAVELIN_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${RAVELIN_LAUNCHER})
  set(CMAKE_C_COMPILER_LAUNCHER ${RAVELIN_LAUNCHER})
endif()

set(RAVELIN_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # clang counts -Wsign-conversion into -Wconversion, g++ does not in C++: keep to one meaning.
  list(APPEND RAVELIN_WARNINGS -Wthread-safety -Wthread-safety-beta -Wno-sign-conversion)
else()
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>")  # ccache's condition.
endif()
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${RAVELIN_WARNINGS}>")
# Same bytes wherever the checkout lies.
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.>")

# Hardening: the sentry parses what a hostile guest wrote. Checked containers and stack protectors
# cost a few per cent and are in every build type.
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-fstack-protector-strong;-fcf-protection=full>")
add_compile_definitions(_GLIBCXX_ASSERTIONS)
if(CMAKE_BUILD_TYPE STREQUAL "Release")
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # With full inlining g++ 12 follows paths that cannot be, into Abseil's containers and std::optional: shown, not
    # fatal. The dev build, where they do not arise, keeps them as errors.
    add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wno-error=maybe-uninitialized;-Wno-error=array-bounds;-Wno-error=stringop-overflow;-Wno-error=stringop-overread;-Wno-error=free-nonheap-object>")
  endif()
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-fstack-clash-protection;-ftrivial-auto-var-init=zero>")
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>")
endif()
add_link_options(-Wl,-z,relro,-z,now,-z,noexecstack)

if(RAVELIN_SANITIZE)
  add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${RAVELIN_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>")
  add_link_options(-fsanitize=${RAVELIN_SANITIZE})
  add_compile_definitions(RAVELIN_SANITIZE=1)
endif()

include_directories("${CMAKE_SOURCE_DIR}" "${CMAKE_BINARY_DIR}")

find_program(RAVELIN_MOLD mold)
if(RAVELIN_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# ravelin_use_static_archives(): after a find_package in the same directory. Debian's packages carry both
# forms of a library and their CMake files name the shared one; our executables link the archive.
function(ravelin_use_static_archives)
  get_property(imported DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target ${imported})
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "INTERFACE_LIBRARY")
      continue()
    endif()
    foreach(suffix "" _NONE _RELEASE _RELWITHDEBINFO)
      get_target_property(location ${target} IMPORTED_LOCATION${suffix})
      if(location MATCHES "^(.*/lib[^/]+)\\.so[.0-9]*$")
        string(REGEX REPLACE "(-[0-9][.0-9]*)?\\.so[.0-9]*$" ".a" archive "${location}")
        if(EXISTS "${archive}")
          set_target_properties(${target} PROPERTIES IMPORTED_LOCATION${suffix} "${archive}")
        endif()
      endif()
    endforeach()
  endforeach()
endfunction()

find_package(absl REQUIRED)
find_package(Threads REQUIRED)
ravelin_use_static_archives()

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

# Static and position-independent: nothing is loaded from a host path at start-up, and the sentry
# keeps address randomization. A sanitizer's run-time library exists only as a shared object.
function(ravelin_link_statically name)
  if(NOT RAVELIN_SANITIZE)
    target_link_options(${name} PRIVATE -static-pie)
  endif()
endfunction()

# ravelin_executable(name SRCS a.cc DEPS x): one of the product's static executables.
function(ravelin_executable name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  ravelin_link_statically(${name})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
endfunction()

# ravelin_test(name SRCS a_test.cc DEPS x): a Catch2 unit test program, one CTest entry.
# Exit status 77 means skipped (see test/support/catch2_main.cc).
function(ravelin_test name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} catch2_main)
  target_precompile_headers(${name} REUSE_FROM harness_test)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS unit SKIP_RETURN_CODE 77)
endfunction()

# ravelin_guest_test(name SRCS a.cc ... [LIBS x] [TIMEOUT s]): a static Catch2 program that links none of
# our code. CTest runs it natively first (labels guest;native); only if it passes there it runs inside
# the sandbox, once per platform (labels guest;ptrace and guest;systrap). Differences that we know of
# are listed in test/guest/expect/; see test/support/guest_runner.
function(ravelin_guest_test name)
  cmake_parse_arguments(ARG "TRAPS" "TIMEOUT" "SRCS;LIBS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE catch2_main ${ARG_LIBS} Threads::Threads)
  target_precompile_headers(${name} REUSE_FROM harness_test)
  if(NOT RAVELIN_SANITIZE)
    target_link_options(${name} PRIVATE -static)
  endif()
  set(runner "${CMAKE_SOURCE_DIR}/test/support/guest_runner")
  set(modes native ptrace systrap)
  if(ARG_TRAPS)
    list(APPEND modes traps)  # Without rewritten call sites.
  endif()
  foreach(mode ${modes})
    add_test(NAME guest.${name}.${mode}
             COMMAND "${runner}" ${mode} $<TARGET_FILE:${name}> "${CMAKE_BINARY_DIR}/bin/runsc")
    set_tests_properties(guest.${name}.${mode} PROPERTIES
      TIMEOUT ${ARG_TIMEOUT} LABELS "guest;${mode}" SKIP_RETURN_CODE 77)
    if(mode STREQUAL native)
      set_tests_properties(guest.${name}.native PROPERTIES FIXTURES_SETUP guest_${name}_is_right)
    else()
      set_tests_properties(guest.${name}.${mode} PROPERTIES
        FIXTURES_REQUIRED guest_${name}_is_right)
    endif()
  endforeach()
endfunction()
