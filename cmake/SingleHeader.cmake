# Writes the whole public interface as one file, for the CPU and header-only:
#   cmake -D INCLUDE_DIR=... -D OUTPUT=... -P SingleHeader.cmake
cmake_minimum_required(VERSION 3.21)


# Appends the text of a header to `out`, with the headers it includes in place of their #include lines.
function(append_header header out)
  file(READ "${INCLUDE_DIR}/${header}" rest)
  string(REPLACE "#pragma once\n" "" rest "${rest}")
  string(REGEX REPLACE "// SPDX-License-Identifier: MIT\n" "" rest "${rest}")
  set(text "${${out}}")
  string(APPEND text "\n// ---- ${header}\n")
  string(FIND "\n${rest}" "\n#include <steppe/" at)
  while(NOT at EQUAL -1)
    string(SUBSTRING "${rest}" 0 ${at} before)
    string(APPEND text "${before}")
    string(SUBSTRING "${rest}" ${at} -1 rest)
    string(FIND "${rest}" "\n" end)
    string(SUBSTRING "${rest}" 0 ${end} line)
    string(SUBSTRING "${rest}" ${end} -1 rest)
    string(REGEX REPLACE "^#include <(.*)>.*$" "\\1" included "${line}")
    get_property(written GLOBAL PROPERTY steppe_written)
    # .inl files are included in several places; CUDA is left out.
    if(included MATCHES "\\.inl$" OR NOT (included IN_LIST written OR included MATCHES "/(dispatch_cuda|cuda)"))
      set_property(GLOBAL APPEND PROPERTY steppe_written "${included}")
      append_header("${included}" text)
    endif()
    string(FIND "\n${rest}" "\n#include <steppe/" at)
  endwhile()
  string(APPEND text "${rest}")
  set(${out} "${text}" PARENT_SCOPE)
endfunction()

file(STRINGS "${INCLUDE_DIR}/steppe/version.hpp" version REGEX "define STEPPE_VERSION \"")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${version}")
set(all "// steppe ${version}: sharpness-aware optimizers for LibTorch, in one file.\n// SPDX-License-Identifier: MIT\n#pragma once\n")
append_header(steppe/steppe.hpp all)
file(WRITE "${OUTPUT}" "${all}")
