# Compiles everything.cpp with the warnings of strict programs; each is an error.
cmake_minimum_required(VERSION 3.21)
set(flags -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wdouble-promotion -Wfloat-equal -Wold-style-cast -Werror)
if(ID STREQUAL "GNU")
  list(APPEND flags -Wuseless-cast)
endif()
set(system "")
list(REMOVE_ITEM LIBTORCH /usr/include)  # of a system's package: named again, it hides the C library's headers
foreach(folder IN LISTS LIBTORCH)
  list(APPEND system -isystem "${folder}")
endforeach()
execute_process(COMMAND "${CXX}" -std=c++${STANDARD} -fsyntax-only ${flags} -I "${INCLUDE}" ${system}
    "${CMAKE_CURRENT_LIST_DIR}/everything.cpp"
  RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(failed)
  message(FATAL_ERROR "${errors}")
endif()
