# SPDX-License-Identifier: Apache-2.0
#
# Third-party libraries as IMPORTED targets, nestling_deps::<name>. Include this from the top-level CMakeLists.txt.
#
# Pinned sources are built by build.sh, at configure time when its cache lacks them. Small header-only libraries and
# the test libraries come from the system (scripts/debian-packages.txt).

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  "${CMAKE_CURRENT_LIST_DIR}/build.sh" "${CMAKE_CURRENT_LIST_DIR}/versions.txt")

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# nestling_imported(<name> INCLUDE <folder> [LIBRARY <archive>] [USES <target>...]): one IMPORTED target,
# whose headers are SYSTEM headers (no warnings from them).
function(nestling_imported name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "INCLUDE;LIBRARY" "USES")
  if(ARG_LIBRARY)
    add_library(nestling_deps::${name} UNKNOWN IMPORTED GLOBAL)
    set_target_properties(nestling_deps::${name} PROPERTIES IMPORTED_LOCATION "${ARG_LIBRARY}")
  else()
    add_library(nestling_deps::${name} INTERFACE IMPORTED GLOBAL)
  endif()
  if(ARG_INCLUDE)
    target_include_directories(nestling_deps::${name} SYSTEM INTERFACE "${ARG_INCLUDE}")
  endif()
  target_link_libraries(nestling_deps::${name} INTERFACE ${ARG_USES})
endfunction()

# ---- System packages instead of pinned sources, one group at a time ----

set(NESTLING_LICENSE_DIRS)  # folders with the licence texts of what is linked in
set(nestling_groups xnnpack pthreadpool flatbuffers sentencepiece)
if(NESTLING_SYSTEM_DEPS)
  include("${CMAKE_CURRENT_LIST_DIR}/system.cmake")
endif()

# ---- Pinned sources ----

if(nestling_groups)
  list(JOIN nestling_groups "," nestling_group_list)
  set(nestling_build_args --print --only ${nestling_group_list})
  if(NESTLING_SANITIZE MATCHES "thread")
    list(APPEND nestling_build_args --tsan)
  endif()
  if(CMAKE_CROSSCOMPILING)
    list(APPEND nestling_build_args --toolchain "${CMAKE_TOOLCHAIN_FILE}")
    foreach(name ANDROID_ABI ANDROID_PLATFORM ANDROID_STL)
      if(DEFINED ${name})
        list(APPEND nestling_build_args -D${name}=${${name}})
      endif()
    endforeach()
    # The toolchain file names them; CC and CXX, which project() has set, would reach flatc, which runs on this machine.
    set(nestling_compilers --unset=CC --unset=CXX)
  else()
    set(nestling_compilers CC=${CMAKE_C_COMPILER} CXX=${CMAKE_CXX_COMPILER})
  endif()
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -E env ${nestling_compilers}
            "${CMAKE_CURRENT_LIST_DIR}/build.sh" ${nestling_build_args}
    OUTPUT_VARIABLE nestling_prefixes
    RESULT_VARIABLE nestling_build_result)
  if(NOT nestling_build_result EQUAL 0)
    message(FATAL_ERROR "third_party/build.sh failed; its messages are above")
  endif()
  string(REPLACE "\n" ";" nestling_prefixes "${nestling_prefixes}")
  foreach(line IN LISTS nestling_prefixes)  # <group>=<prefix>
    if(line MATCHES "^([a-z]+)=(.+)$")
      set(nestling_prefix_${CMAKE_MATCH_1} "${CMAKE_MATCH_2}")
    endif()
  endforeach()
endif()

if("pthreadpool" IN_LIST nestling_groups)
  set(root "${nestling_prefix_pthreadpool}")
  nestling_imported(pthreadpool INCLUDE "${root}/include" LIBRARY "${root}/lib/libpthreadpool.a"
    USES Threads::Threads)
  list(APPEND NESTLING_LICENSE_DIRS "${root}/licenses")
endif()

if("xnnpack" IN_LIST nestling_groups)
  set(root "${nestling_prefix_xnnpack}")
  nestling_imported(cpuinfo INCLUDE "${root}/include" LIBRARY "${root}/lib/libcpuinfo.a" USES Threads::Threads)
  nestling_imported(xnnpack_kernels LIBRARY "${root}/lib/libmicrokernels-prod.a")
  nestling_imported(xnnpack INCLUDE "${root}/include" LIBRARY "${root}/lib/libXNNPACK.a"
    USES nestling_deps::xnnpack_kernels nestling_deps::pthreadpool nestling_deps::cpuinfo m)
  list(APPEND NESTLING_LICENSE_DIRS "${root}/licenses")
endif()

if("flatbuffers" IN_LIST nestling_groups)
  set(root "${nestling_prefix_flatbuffers}")
  nestling_imported(flatbuffers INCLUDE "${root}/include")  # header-only: builder, verifier and accessors are
  set(NESTLING_FLATC "${root}/bin/flatc")
  list(APPEND NESTLING_LICENSE_DIRS "${root}/licenses")
endif()

if("sentencepiece" IN_LIST nestling_groups)
  set(root "${nestling_prefix_sentencepiece}")
  nestling_imported(sentencepiece INCLUDE "${root}/include" LIBRARY "${root}/lib/libsentencepiece.a"
    USES Threads::Threads)
  # The model file's message type (sentencepiece_model.pb.h), for code that writes or inspects a model file.
  nestling_imported(sentencepiece_proto INCLUDE "${root}/include/sentencepiece-proto"
    USES nestling_deps::sentencepiece)
  # Trains a vocabulary: tools and tests only.
  nestling_imported(sentencepiece_train INCLUDE "${root}/include" LIBRARY "${root}/lib/libsentencepiece_train.a"
    USES nestling_deps::sentencepiece)
  list(APPEND NESTLING_LICENSE_DIRS "${root}/licenses")
endif()

# ---- Header-only libraries of the system ----

# nestling_header_only(<name> <header> <Debian package> [suffix]). What lies in /usr/include is reached through a link
# in the build folder: /usr/include itself as an include path would come before the compiler's own order of folders,
# and would be wrong when cross-compiling, where these headers are as good as on the host.
function(nestling_header_only name header package)
  find_path(found ${header} PATH_SUFFIXES ${ARGN} NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
  if(NOT found)
    message(FATAL_ERROR "${header} not found; scripts/setup.sh installs it (Debian package ${package})")
  endif()
  if(found STREQUAL "/usr/include")
    string(REGEX MATCH "^[^/]+" entry "${header}")
    set(links "${CMAKE_BINARY_DIR}/third_party/${name}")
    file(MAKE_DIRECTORY "${links}")
    file(CREATE_LINK "${found}/${entry}" "${links}/${entry}" SYMBOLIC)
    set(found "${links}")
  endif()
  nestling_imported(${name} INCLUDE "${found}")
endfunction()

nestling_header_only(json nlohmann/json.hpp nlohmann-json3-dev)
nestling_header_only(cli11 CLI/CLI.hpp libcli11-dev)
nestling_header_only(stb stb_image.h libstb-dev stb)
nestling_header_only(kissfft kissfft/kissfft.hh libkissfft-dev)
nestling_header_only(xxhash xxhash.h libxxhash-dev)
target_compile_definitions(nestling_deps::xxhash INTERFACE XXH_INLINE_ALL)  # no symbols, no archive

# ---- The command line tool's sound files: shared libraries of the system, not in libnestling ----

if(NESTLING_BUILD_CLI)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(sndfile REQUIRED IMPORTED_TARGET sndfile>=1.1)  # 1.1: MP3
  pkg_check_modules(soxr REQUIRED IMPORTED_TARGET soxr)
  nestling_imported(sndfile USES PkgConfig::sndfile)
  nestling_imported(soxr USES PkgConfig::soxr)
endif()

# ---- Tests and benchmarks ----

if(NESTLING_BUILD_TESTS AND CMAKE_CROSSCOMPILING)
  # The system's archives are for this machine; its package brings the sources as well.
  find_path(googletest googlemock/CMakeLists.txt PATHS /usr/src/googletest NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
  if(NOT googletest)
    message(FATAL_ERROR "No sources of GoogleTest found; scripts/setup.sh installs them (Debian package libgmock-dev)")
  endif()
  set(INSTALL_GTEST OFF CACHE BOOL "Not part of our package" FORCE)
  add_subdirectory("${googletest}" "${CMAKE_BINARY_DIR}/third_party/googletest" EXCLUDE_FROM_ALL)
elseif(NESTLING_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
if(NESTLING_BUILD_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
