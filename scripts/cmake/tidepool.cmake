# tidepool_library(NAME SRCS ... HDRS ... DEPS ...)   a static library with the project's warnings
# tidepool_test(NAME SRCS ... DEPS ... LABELS ...)    one GoogleTest binary for a folder; label `unit` unless given
# tidepool_binary(NAME SRCS ... DEPS ...)             an executable in bin/

# Of an installed library (install.cmake): where its headers are then.
set(TIDEPOOL_INCLUDES $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include/tidepool>)
set(TIDEPOOL_WARNINGS -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers)
if(TIDEPOOL_WERROR)
  list(APPEND TIDEPOOL_WARNINGS -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  list(APPEND TIDEPOOL_WARNINGS -Wthread-safety)
elseif(TIDEPOOL_SANITIZE)
  list(APPEND TIDEPOOL_WARNINGS -Wno-maybe-uninitialized)  # g++ documents false ones under -fsanitize
endif()

function(tidepool_flags target)
  target_include_directories(${target} PUBLIC ${TIDEPOOL_INCLUDES})
  target_compile_options(${target} PRIVATE ${TIDEPOOL_WARNINGS})
  if(TIDEPOOL_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${TIDEPOOL_SANITIZE} -fno-omit-frame-pointer
                           -fno-sanitize-recover=all -g1)
    target_link_options(${target} PUBLIC -fsanitize=${TIDEPOOL_SANITIZE})
  endif()
endfunction()

function(tidepool_library name)
  cmake_parse_arguments(A "" "" "SRCS;HDRS;DEPS" ${ARGN})
  if(A_SRCS)
    add_library(${name} STATIC ${A_SRCS} ${A_HDRS})
    tidepool_flags(${name})
    target_link_libraries(${name} PUBLIC ${A_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${TIDEPOOL_INCLUDES})
    target_link_libraries(${name} INTERFACE ${A_DEPS})
  endif()
endfunction()

function(tidepool_binary name)
  cmake_parse_arguments(A "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${A_SRCS})
  tidepool_flags(${name})
  target_link_libraries(${name} PRIVATE ${A_DEPS})
endfunction()

function(tidepool_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT A_LABELS)
    set(A_LABELS unit)
  endif()
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  if(TIDEPOOL_SANITIZE)
    math(EXPR A_TIMEOUT "${A_TIMEOUT} * 6")  # seconds; ThreadSanitizer takes up to 30 times as long
  endif()
  tidepool_binary(${name} SRCS ${A_SRCS} DEPS ${A_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE TIDEPOOL_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT})
endfunction()
