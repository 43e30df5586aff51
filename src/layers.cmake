# SPDX-License-Identifier: Apache-2.0
# One folder, one layer: an object library that may include the layers named by USES and whatever
# is below those. Layers are added bottom-up, so a cycle cannot configure.

add_library(nestling_options INTERFACE)
target_compile_options(nestling_options INTERFACE
  -Wall -Wextra -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<COMPILE_LANGUAGE:CXX>:-Woverloaded-virtual>)
if(NESTLING_SANITIZE)
  target_compile_options(nestling_options INTERFACE
    -fsanitize=${NESTLING_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(nestling_options INTERFACE -fsanitize=${NESTLING_SANITIZE})
endif()

function(nestling_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "NOT_SHIPPED" "" "SOURCES;USES;DEPS")
  add_library(nestling_${name} OBJECT ${ARG_SOURCES})
  set_target_properties(nestling_${name} PROPERTIES
    POSITION_INDEPENDENT_CODE ON CXX_VISIBILITY_PRESET hidden C_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(nestling_${name} PUBLIC
    ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include
    ${PROJECT_BINARY_DIR}/generated)
  target_link_libraries(nestling_${name} PRIVATE nestling_options PUBLIC ${ARG_DEPS})
  foreach(layer IN LISTS ARG_USES)
    if(NOT TARGET nestling_${layer})
      message(FATAL_ERROR "${name} uses ${layer}, which is not below it")
    endif()
    target_link_libraries(nestling_${name} PUBLIC nestling_${layer})
  endforeach()
  foreach(library nestling nestling_internal)
    target_sources(${library} PRIVATE $<TARGET_OBJECTS:nestling_${name}>)
    target_link_libraries(${library} PRIVATE ${ARG_DEPS} nestling_options)
  endforeach()
  # Tests of the static archive need the same third-party libraries.
  target_link_libraries(nestling_internal INTERFACE ${ARG_DEPS})
endfunction()
