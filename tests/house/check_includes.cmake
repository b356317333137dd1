# Fails where a header under include/ includes upwards, or more of LibTorch than its place allows.
cmake_minimum_required(VERSION 3.21)

# The layers (floors), top to bottom: a header may include from its own layer and those below.
set(floors
  "steppe/distributed/.*"
  "steppe/steppe.hpp"
  "steppe/optimizers.hpp"
  "steppe/sharpness_aware.hpp"
  "steppe/tensorized/deviation_aware_scaling.hpp"
  "steppe/two_pass.hpp"
  "steppe/step/optimizer_checkpoint.hpp"
  "steppe/step/two_pass.hpp"
  "steppe/step/reduction.hpp"
  "steppe/step/step_report.hpp"
  "steppe/shift/.*"
  "steppe/sharpness/.*"
  "steppe/perturbation.hpp"
  "steppe/tensorized/.*"
  "steppe/training/.*"
  "steppe/step/(group_settings|step_plan).hpp"
  "steppe/step/.*|steppe/(options|report|parameter_roles).hpp"
  "steppe/(ascent|descent)/.*"
  "steppe/direction.hpp"
  "steppe/policy/.*|steppe/(schedule|placement|per_parameter).hpp"
  "steppe/base/.*"
  "steppe/kernels/dispatch(_combination|_update)?.hpp"
  "steppe/kernels/dispatch_cuda.hpp"
  "steppe/kernels/(reference_combination|reference_sharded).hpp"
  "steppe/kernels/task_layout.hpp"
  "steppe/kernels/reference.hpp"
  "steppe/kernels/.*"
  "steppe/sharding.hpp"
  "steppe/(version|no_fast_math).hpp")

# What a header only declares is defined beside it, in an .ipp of the same layer.
function(floor_of header out)
  string(REGEX REPLACE "\\.ipp$" ".hpp" header "${header}")
  set(index 0)
  foreach(floor IN LISTS floors)
    if(header MATCHES "^(${floor})$")
      set(${out} ${index} PARENT_SCOPE)
      return()
    endif()
    math(EXPR index "${index} + 1")
  endforeach()
  message(FATAL_ERROR "${header} has no floor: add it to the list in tests/house/check_includes.cmake")
endfunction()

set(wrong "")
file(GLOB_RECURSE headers RELATIVE "${INCLUDE_DIR}" "${INCLUDE_DIR}/steppe/*.hpp" "${INCLUDE_DIR}/steppe/*.ipp")
foreach(header IN LISTS headers)
  floor_of(${header} own_floor)
  file(STRINGS "${INCLUDE_DIR}/${header}" includes REGEX "^ *# *include")
  foreach(line IN LISTS includes)
    string(REGEX REPLACE ".*[<\"]([^>\"]*)[>\"].*" "\\1" included "${line}")
    if(included MATCHES "^torch/(torch|all)\\.h$")
      list(APPEND wrong "${header} includes the whole of LibTorch (${included})")
    endif()
    if(header MATCHES "/kernels/" AND included MATCHES "^(torch|ATen|c10)/" AND NOT header MATCHES "/(dispatch|reference|task_layout)[a-z_]*\\.[hi]pp$")
      list(APPEND wrong "${header} is a kernel and must not know torch (${included})")
    endif()
    if(included MATCHES "^steppe/")
      floor_of(${included} floor)
      if(floor LESS own_floor)
        list(APPEND wrong "${header} includes upwards (${included})")
      endif()
    endif()
  endforeach()
endforeach()
if(wrong)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "The includes of the house:\n  ${wrong}")
endif()
