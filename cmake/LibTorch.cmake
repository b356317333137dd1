# Finds the user's LibTorch; provides one only for steppe's own builds on a machine without any.
include_guard(GLOBAL)

function(steppe_check_choice choice where)
  if(NOT choice MATCHES "^(auto|system|provided)$")
    message(FATAL_ERROR "${where} is '${choice}'; it must be auto, system or provided")
  endif()
endfunction()

# Unless a value was chosen, the environment sets the default, in an existing build folder too.
set(steppe_libtorch_default "$CACHE{STEPPE_LIBTORCH_DEFAULT}")
if(NOT "$ENV{STEPPE_LIBTORCH}" STREQUAL "")
  set(steppe_libtorch_default "$ENV{STEPPE_LIBTORCH}")
  steppe_check_choice("${steppe_libtorch_default}" "The environment variable STEPPE_LIBTORCH")
elseif(NOT steppe_libtorch_default)
  set(steppe_libtorch_default auto)
endif()
if(NOT DEFINED STEPPE_LIBTORCH OR STEPPE_LIBTORCH STREQUAL "$CACHE{STEPPE_LIBTORCH_DEFAULT}")
  set(STEPPE_LIBTORCH "${steppe_libtorch_default}" CACHE STRING
    "Which LibTorch to use: auto (the one that is found, else a provided one), system, provided" FORCE)
endif()
set(STEPPE_LIBTORCH_DEFAULT "${steppe_libtorch_default}" CACHE INTERNAL "The default that STEPPE_LIBTORCH last had")
set_property(CACHE STEPPE_LIBTORCH PROPERTY STRINGS auto system provided)
steppe_check_choice("${STEPPE_LIBTORCH}" "STEPPE_LIBTORCH")

# The version and the root folder of the LibTorch behind the target `torch`, from its headers.
function(steppe_describe_libtorch out_version out_root)
  set(${out_version} "unknown" PARENT_SCOPE)
  set(${out_root} "an unknown folder" PARENT_SCOPE)
  get_target_property(include_dirs torch INTERFACE_INCLUDE_DIRECTORIES)
  if(NOT include_dirs)
    set(include_dirs "")
  endif()
  foreach(dir IN LISTS include_dirs CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
    # Two places: the second since about 2.8, where the first only forwards to it.
    foreach(header torch/csrc/api/include/torch/version.h torch/headeronly/version.h)
      if(EXISTS "${dir}/${header}")
        file(STRINGS "${dir}/${header}" lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
        if(lines MATCHES "MAJOR ([0-9]+).*MINOR ([0-9]+).*PATCH ([0-9]+)")
          set(${out_version} "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}" PARENT_SCOPE)
          get_filename_component(root "${dir}" DIRECTORY)
          set(${out_root} "${root}" PARENT_SCOPE)
          return()
        endif()
      endif()
    endforeach()
  endforeach()
endfunction()

# The user's own: Torch_DIR, CMAKE_PREFIX_PATH, the system's package.
macro(steppe_find_own_libtorch)
  # find_package would silently take another one.
  if(Torch_DIR AND NOT EXISTS "${Torch_DIR}/TorchConfig.cmake")
    message(FATAL_ERROR "Torch_DIR is '${Torch_DIR}', and there is no TorchConfig.cmake in it. It is share/cmake/Torch of a "
      "LibTorch; configure with -UTorch_DIR to search for one.")
  endif()
  # Visible in the whole project, so that a project with steppe as a subfolder can link it (CMake 3.24 and later).
  set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL TRUE)
  find_package(Torch QUIET)
  unset(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL)
endmacro()

# Sets the target `torch`, and STEPPE_TORCH_VERSION and STEPPE_TORCH_ORIGIN for the build's own decisions. A macro:
# find_package's own variables must reach the directory that links.
macro(steppe_find_libtorch)
  if(TARGET torch)
    set(STEPPE_TORCH_ORIGIN "the enclosing project's target torch")
  else()
    if(NOT STEPPE_LIBTORCH STREQUAL "provided")
      steppe_find_own_libtorch()
      set(STEPPE_TORCH_ORIGIN found)
    endif()
    if(NOT TARGET torch)
      if(STEPPE_LIBTORCH STREQUAL "system" OR NOT PROJECT_IS_TOP_LEVEL)
        message(FATAL_ERROR "steppe needs LibTorch and none was found (STEPPE_LIBTORCH=${STEPPE_LIBTORCH}). Options: "
          "set Torch_DIR or CMAKE_PREFIX_PATH to your LibTorch; install your system's package (Debian and Ubuntu: "
          "libtorch-dev); where steppe is the top-level project, configure with -DSTEPPE_LIBTORCH=provided; where it is not, "
          "include cmake/ProvideLibTorch.cmake and call steppe_provide_libtorch() before adding steppe.")
      endif()
      include("${PROJECT_SOURCE_DIR}/cmake/ProvideLibTorch.cmake")
      steppe_provide_libtorch()
      set(STEPPE_TORCH_ORIGIN provided)
    endif()
  endif()
  steppe_describe_libtorch(STEPPE_TORCH_VERSION STEPPE_TORCH_ROOT)
  message(STATUS "LibTorch ${STEPPE_TORCH_VERSION} in ${STEPPE_TORCH_ROOT} (${STEPPE_TORCH_ORIGIN}; STEPPE_LIBTORCH=${STEPPE_LIBTORCH})")
endmacro()
