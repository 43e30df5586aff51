# SPDX-License-Identifier: Apache-2.0
#
# NESTLING_SYSTEM_DEPS=ON: takes from nestling_groups what suitable system packages provide. Included by
# dependencies.cmake only. Static archives are preferred, so that libnestling stays self-contained; XNNPACK, for which
# Debian has nothing else, may be shared.

include(CheckCXXSourceCompiles)

# XNNPACK has no version number: a suitable one is one that has what src/graph calls.
find_path(xnnpack_include xnnpack.h NO_CACHE)
find_library(xnnpack_library NAMES XNNPACK libXNNPACK.a xnnpack NO_CACHE)
find_library(xnnpack_kernels_library NAMES libmicrokernels-prod.a NO_CACHE)
find_library(pthreadpool_library NAMES libpthreadpool.a pthreadpool NO_CACHE)
find_library(cpuinfo_library NAMES libcpuinfo.a cpuinfo NO_CACHE)
if(xnnpack_include AND xnnpack_library AND pthreadpool_library AND cpuinfo_library)
  set(CMAKE_REQUIRED_LIBRARIES ${xnnpack_library})
  if(xnnpack_kernels_library)
    list(APPEND CMAKE_REQUIRED_LIBRARIES ${xnnpack_kernels_library})
  endif()
  list(APPEND CMAKE_REQUIRED_LIBRARIES ${pthreadpool_library} ${cpuinfo_library} Threads::Threads m)
  check_cxx_source_compiles("
    #include <cpuinfo.h>
    #include <pthreadpool.h>
    #include <xnnpack.h>
    int main() {
      xnn_weights_cache_provider provider{};
      (void)provider;
      (void)xnn_datatype_qbint4;
      (void)&xnn_define_unary;
      (void)&xnn_define_binary;
      return xnn_initialize(nullptr) + cpuinfo_initialize() + (pthreadpool_create(1) != nullptr);
    }" NESTLING_SYSTEM_XNNPACK_WORKS)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(NESTLING_SYSTEM_XNNPACK_WORKS)
    nestling_imported(cpuinfo LIBRARY "${cpuinfo_library}" USES Threads::Threads)
    nestling_imported(pthreadpool LIBRARY "${pthreadpool_library}" USES Threads::Threads)
    set(kernels)
    if(xnnpack_kernels_library)
      nestling_imported(xnnpack_kernels LIBRARY "${xnnpack_kernels_library}")
      set(kernels nestling_deps::xnnpack_kernels)
    endif()
    nestling_imported(xnnpack LIBRARY "${xnnpack_library}"
      USES ${kernels} nestling_deps::pthreadpool nestling_deps::cpuinfo m)
    list(REMOVE_ITEM nestling_groups xnnpack pthreadpool)
  endif()
endif()

# The generated header insists on the very version of the headers that flatc belongs to.
find_program(flatc flatc NO_CACHE)
find_path(flatbuffers_include flatbuffers/flatbuffers.h NO_CACHE)
if(flatc AND flatbuffers_include)
  execute_process(COMMAND "${flatc}" --version OUTPUT_VARIABLE flatc_version OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX MATCH "[0-9]+[0-9.]*" flatc_version "${flatc_version}")
  if(flatc_version VERSION_GREATER_EQUAL 23.5.26)
    nestling_imported(flatbuffers)
    set(NESTLING_FLATC "${flatc}")
    list(REMOVE_ITEM nestling_groups flatbuffers)
  endif()
endif()

message(STATUS "Pinned libraries that no system package is suitable for: ${nestling_groups}")
