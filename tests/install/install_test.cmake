# SPDX-License-Identifier: Apache-2.0
# The installed package as others see it: find_package(nestling), pkg-config, the tool.

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "${command}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

set(prefix ${WORK}/prefix)
file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})

set(flags)
if(SANITIZE)
  set(flags -fsanitize=${SANITIZE})
endif()
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -G ${GENERATOR}
    -DCMAKE_PREFIX_PATH=${prefix} -DWANTED_VERSION=${VERSION}
    -DCMAKE_C_COMPILER=${C_COMPILER} -DCMAKE_CXX_COMPILER=${CXX_COMPILER}
    -DCMAKE_EXE_LINKER_FLAGS=${flags})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer_c)
run(${WORK}/build/consumer_cxx)

# The tool finds its library wherever both are moved together.
file(RENAME ${prefix} ${WORK}/moved)
run(${WORK}/moved/bin/nestling --version)
if(NOT output MATCHES "^${VERSION}\n$")
  message(FATAL_ERROR "nestling --version: ${output}")
endif()

find_program(pkg_config pkg-config)
if(pkg_config)
  file(GLOB_RECURSE pc ${WORK}/moved/nestling.pc)
  get_filename_component(pc_folder ${pc} DIRECTORY)
  run(${CMAKE_COMMAND} -E env PKG_CONFIG_PATH=${pc_folder}
      ${pkg_config} --cflags --libs nestling)
  separate_arguments(package UNIX_COMMAND "${output}")
  run(${C_COMPILER} -std=c99 ${flags} ${SOURCE}/consumer.c ${package} -o ${WORK}/consumer_pc)
  file(GLOB_RECURSE library ${WORK}/moved/libnestling.so)
  get_filename_component(library_folder ${library} DIRECTORY)
  run(${CMAKE_COMMAND} -E env LD_LIBRARY_PATH=${library_folder} ${WORK}/consumer_pc)
endif()
