# How our own targets are compiled; none of it reaches a consumer.
include_guard(GLOBAL)

# LibTorch's headers need C++20 from about 2.10 on; before, C++17 is what they are tested with.
if(STEPPE_TORCH_VERSION STREQUAL "unknown" OR STEPPE_TORCH_VERSION VERSION_LESS 2.10)
  set(CMAKE_CXX_STANDARD 17)
else()
  set(CMAKE_CXX_STANDARD 20)
endif()
set(CMAKE_CXX_STANDARD_REQUIRED ON)
# The kernels need no later standard, and CMake 3.25 supports none.
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CXX_EXTENSIONS OFF)

find_program(STEPPE_CCACHE ccache DOC "Compiler cache, used when there")
if(STEPPE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Without this it does not cache files that use a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros "${STEPPE_CCACHE}")
endif()

set(steppe_compiled_library steppe-compiled)
if(STEPPE_CUDA)
  set(steppe_compiled_library steppe-compiled_cuda)
endif()

# steppe_own_target(<target> [HEADER_ONLY]): links the compiled library, which halves the build time; with HEADER_ONLY
# only the headers are used.
function(steppe_own_target target)
  set(library ${steppe_compiled_library})
  if("HEADER_ONLY" IN_LIST ARGN)
    set(library steppe::steppe)
  endif()
  target_link_libraries(${target} PRIVATE ${library})
  steppe_own_flags(${target})
  if(STEPPE_CUDA)
    set_target_properties(${target} PROPERTIES CUDA_RUNTIME_LIBRARY Shared)
  endif()
endfunction()

# The same for a target without LibTorch.
function(steppe_own_flags target)
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4)
  else()
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wconversion;-Wshadow>")
  endif()
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    # libstdc++ 12's stable_sort calls a deprecated function, and clang 19 warns wherever it is used.
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wno-deprecated-declarations>")
  endif()
  # For a compiler with new warnings: cmake --compile-no-warning-as-error.
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON)
  if(STEPPE_SANITIZE)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined;-fno-sanitize-recover=undefined;-fno-omit-frame-pointer>")
    target_link_options(${target} PRIVATE -fsanitize=address,undefined)
    # In instrumented code GCC reports uninitialized optionals in LibTorch's headers.
    target_compile_options(${target} PRIVATE "$<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>")
  endif()
endfunction()
