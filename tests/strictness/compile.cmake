# Compiles everything.cpp with the warnings of strict programs; each is an error.
cmake_minimum_required(VERSION 3.21)
set(flags -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wdouble-promotion -Wfloat-equal -Wold-style-cast -Werror)
if(ID STREQUAL "GNU")
  list(APPEND flags -Wuseless-cast)
endif()
set(system "")
foreach(folder IN LISTS LIBTORCH)
  get_filename_component(folder "${folder}" REALPATH)
  # A system's package: named again, this folder hides the C library's headers.
  if(NOT folder STREQUAL "/usr/include")
    list(APPEND system -isystem "${folder}")
  endif()
endforeach()
execute_process(COMMAND "${CXX}" -std=c++${STANDARD} -fsyntax-only ${flags} -I "${INCLUDE}" ${system}
    "${CMAKE_CURRENT_LIST_DIR}/everything.cpp"
  RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(failed)
  message(FATAL_ERROR "${errors}")
endif()
