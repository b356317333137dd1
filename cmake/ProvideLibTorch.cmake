# Provides LibTorch (its CPU part) from pinned Python wheels, for machines that have none.
include_guard(GLOBAL)
include("${CMAKE_CURRENT_LIST_DIR}/Wheels.cmake")

string(CONCAT steppe_libtorch_ways_out
  "Options: set Torch_DIR or CMAKE_PREFIX_PATH to a LibTorch that you have; install your system's package (Debian and "
  "Ubuntu: libtorch-dev) and leave STEPPE_LIBTORCH at auto, or set it to system; or copy the cache folder of a machine "
  "where this worked and name the copy in the environment variable STEPPE_CACHE_DIR.")

# The name of this system's list of wheels, and pip's tags for their platform.
function(steppe_libtorch_platform out_name out_platforms)
  string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" processor)
  if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND processor MATCHES "^(x86_64|amd64)$")
    set(name linux-x86_64)
  elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND processor MATCHES "^(aarch64|arm64)$")
    set(name linux-aarch64)
  elseif(CMAKE_SYSTEM_NAME STREQUAL "Darwin" AND processor MATCHES "^(aarch64|arm64)$")
    set(name macos-arm64)
  else()
    message(FATAL_ERROR "LibTorch can be provided on Linux (x86-64, arm64) and macOS (arm64); this is ${CMAKE_SYSTEM_NAME} "
      "on '${CMAKE_SYSTEM_PROCESSOR}'. ${steppe_libtorch_ways_out}")
  endif()
  if(name STREQUAL "macos-arm64")
    message(STATUS "Providing LibTorch has been tried on Linux only (x86-64, and arm64 emulated). ${steppe_libtorch_ways_out}")
    set(${out_platforms} macosx_14_0_arm64 PARENT_SCOPE)
  else()
    set(tags manylinux_2_28 manylinux_2_25 manylinux_2_17 manylinux2014)
    string(REPLACE "linux-" "" machine "${name}")
    list(TRANSFORM tags APPEND "_${machine}")
    set(${out_platforms} ${tags} PARENT_SCOPE)
  endif()
  set(${out_name} ${name} PARENT_SCOPE)
endfunction()

# Defines the imported target `torch`, and the variables by which programs link what find_package(Torch) has found.
function(steppe_provide_libtorch)
  steppe_libtorch_platform(platform tags)
  # Without the CUDA libraries (1.5 GB and a dozen more wheels): two small ones are enough for libtorch_cpu.
  steppe_provide(home
    NAME "LibTorch 2.15.0"
    PINS "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/libtorch-2.15.0-${platform}.txt"
    SIZE "140 to 550 MB"
    PYTHON 3.12 PLATFORMS ${tags}
    FILES "torch/include/*" "torch/lib/libtorch_cpu.*" "torch/lib/libc10.*" "torch/lib/libomp.dylib" "torch/lib/libgomp*"
      "torch/lib/libarm_compute*" "torch/lib/libgfortran*" "torch/lib/libnvpl_*" "nvidia/cu13/lib/libcudart.so*"
      "nvidia/cu13/lib/libcupti.so*" "*LICENSE*" "*NOTICE*"
    PROBE libtorch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX}
    WAYS_OUT "${steppe_libtorch_ways_out}")

  set(lib "${home}/torch/lib")
  set(torch_cpu "${lib}/libtorch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX}")
  set(c10 "${lib}/libc10${CMAKE_SHARED_LIBRARY_SUFFIX}")
  add_library(torch INTERFACE IMPORTED GLOBAL)
  # An imported target's include folders are system ones, searched before the compiler's own: a LibTorch in /usr/include
  # is not picked up.
  set_target_properties(torch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
    "${home}/torch/include;${home}/torch/include/torch/csrc/api/include")
  target_compile_features(torch INTERFACE cxx_std_20)
  if(APPLE)
    target_link_libraries(torch INTERFACE "${torch_cpu}" "${c10}")
    target_link_options(torch INTERFACE "LINKER:-rpath,${lib}")
  else()
    set(cuda_lib "${home}/nvidia/cu13/lib")
    target_link_libraries(torch INTERFACE -Wl,--no-as-needed "${torch_cpu}" "${c10}" -Wl,--as-needed)
    target_link_options(torch INTERFACE "LINKER:-rpath,${lib}:${cuda_lib}" "LINKER:-rpath-link,${lib}:${cuda_lib}")
  endif()
  set(Torch_FOUND TRUE PARENT_SCOPE)
  set(TORCH_FOUND TRUE PARENT_SCOPE)
  set(TORCH_LIBRARIES torch PARENT_SCOPE)
  set(TORCH_INCLUDE_DIRS "${home}/torch/include" "${home}/torch/include/torch/csrc/api/include" PARENT_SCOPE)
  set(TORCH_INSTALL_PREFIX "${home}/torch" PARENT_SCOPE)
endfunction()
