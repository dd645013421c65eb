# Text files of the source tree as C++ constants, so that a binary needs no files beside it.
#   tidepool_embed_text(TARGET NAMESPACE CONSTANT FILE ...)   adds `extern const char CONSTANT[]` with FILE's text to TARGET
# As a script: cmake -DCONSTANT=... -DNAMESPACE=... -DFROM=... -DTO=... -P embed_text.cmake
if(CMAKE_SCRIPT_MODE_FILE)
  file(READ "${FROM}" text)
  # String literals may be 64 KiB long at least (C++ [implimits]); longer text is pieces side by side.
  string(LENGTH "${text}" length)
  set(literals "")
  set(at 0)
  while(at LESS length)
    string(SUBSTRING "${text}" ${at} 16000 piece)
    string(APPEND literals "    R\"TIDEPOOL(${piece})TIDEPOOL\"\n")
    math(EXPR at "${at} + 16000")
  endwhile()
  file(WRITE "${TO}" "// Made from ${FROM}; do not edit.\nnamespace ${NAMESPACE} {\nextern const char ${CONSTANT}[];\nconst char ${CONSTANT}[] =\n${literals}    \"\";\n}  // namespace ${NAMESPACE}\n")
  return()
endif()

set(TIDEPOOL_EMBED_TEXT ${CMAKE_CURRENT_LIST_FILE})
function(tidepool_embed_text target namespace)
  while(ARGN)
    list(POP_FRONT ARGN constant file)
    set(made ${CMAKE_CURRENT_BINARY_DIR}/${constant}.cc)
    add_custom_command(
      OUTPUT ${made}
      COMMAND ${CMAKE_COMMAND} -DCONSTANT=${constant} -DNAMESPACE=${namespace} -DFROM=${CMAKE_CURRENT_SOURCE_DIR}/${file}
              -DTO=${made} -P ${TIDEPOOL_EMBED_TEXT}
      DEPENDS ${file} ${TIDEPOOL_EMBED_TEXT}
      VERBATIM)
    target_sources(${target} PRIVATE ${made})
  endwhile()
endfunction()
