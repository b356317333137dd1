# Starts PROCESSES copies of PROGRAM on this machine, with the variables that torchrun sets:
#
#   cmake -D PROGRAM=build/release/examples/data_parallel/steppe-data-parallel -D PROCESSES=2 -P launch.cmake -- --compare
#
# All run at once. If one fails, the others end within their time limit, and so does this script, with an error.
cmake_minimum_required(VERSION 3.21)

set(arguments "")
set(is_theirs FALSE)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE ${last})
  if(is_theirs)
    list(APPEND arguments "${CMAKE_ARGV${i}}")
  elseif("${CMAKE_ARGV${i}}" STREQUAL "--")
    set(is_theirs TRUE)
  endif()
endforeach()

# A random port is rarely taken; if it is, the error says so.
string(RANDOM LENGTH 4 ALPHABET 0123456789 digits)
math(EXPR port "20000 + 1${digits} - 10000")

# execute_process runs its commands at once; the output of the last one is shown as it comes.
set(commands "")
math(EXPR rank "${PROCESSES} - 1")
while(rank GREATER_EQUAL 0)
  list(APPEND commands COMMAND "${CMAKE_COMMAND}" -E env "RANK=${rank}" "LOCAL_RANK=${rank}" "WORLD_SIZE=${PROCESSES}"
    MASTER_ADDR=127.0.0.1 "MASTER_PORT=${port}" OMP_NUM_THREADS=1 "${PROGRAM}" ${arguments})
  math(EXPR rank "${rank} - 1")
endwhile()
execute_process(${commands} RESULTS_VARIABLE codes)
foreach(code IN LISTS codes)
  if(NOT code STREQUAL "0")
    message(FATAL_ERROR "A process ended with ${code}.")
  endif()
endforeach()
