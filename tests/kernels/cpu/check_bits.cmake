# Runs PROGRAM (bits.cpp) on each instruction set that the machine has; the lines must be the same. With CXX, EMULATOR,
# INCLUDE_DIR and OUT also that program built for another processor.
cmake_minimum_required(VERSION 3.21)

# The lines of a program on one instruction set.
function(lines_of out set)
  execute_process(COMMAND "${CMAKE_COMMAND}" -E env "STEPPE_CPU=${set}" ${ARGN}
    OUTPUT_VARIABLE lines ERROR_VARIABLE errors RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "${set}: ${failed} ${errors}")
  endif()
  string(REPLACE "\n" ";" lines "${lines}")
  set(${out} "${lines}" PARENT_SCOPE)
endfunction()

# Every set of a program against `expected`.
function(compare_sets)
  execute_process(COMMAND ${ARGN} --sets OUTPUT_VARIABLE sets RESULT_VARIABLE failed OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    message(FATAL_ERROR "${ARGN}: ${failed}")
  endif()
  string(REPLACE "\n" ";" sets "${sets}")
  foreach(set IN LISTS sets)
    lines_of(lines ${set} ${ARGN})
    set(differing "")
    foreach(line other IN ZIP_LISTS expected lines)
      if(NOT line STREQUAL other)
        string(APPEND differing "  ${line} here, ${other} with ${set}\n")
      endif()
    endforeach()
    if(differing)
      message(SEND_ERROR "Other bits than with portable:\n${differing}")
    endif()
  endforeach()
  message("The same bits: ${sets}")
endfunction()

lines_of(expected portable "${PROGRAM}")
list(LENGTH expected count)
if(count LESS 1000)
  message(FATAL_ERROR "Only ${count} cases")
endif()
if(NOT CXX)
  compare_sets("${PROGRAM}")
  return()
endif()
execute_process(COMMAND "${CXX}" -std=c++17 -O2 -static -Wall -Wextra -Wconversion -Wshadow -Werror -I "${INCLUDE_DIR}"
    "${CMAKE_CURRENT_LIST_DIR}/bits.cpp" -o "${OUT}"
  RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(failed)
  message(FATAL_ERROR "${errors}")
endif()
compare_sets("${EMULATOR}" "${OUT}")
