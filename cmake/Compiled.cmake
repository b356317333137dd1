# steppe::compiled: the code outside of templates, as a library. The build that links it compiles it once, with its own
# LibTorch and flags. steppe::compiled_cuda is the same with the CUDA kernels; the language CUDA must be enabled.
include_guard(GLOBAL)

# Further arguments: the libraries it links.
function(steppe_add_compiled name include_dir torch_version)
  if(TARGET steppe-${name})
    return()
  endif()
  add_library(steppe-${name} STATIC EXCLUDE_FROM_ALL "${include_dir}/steppe/compiled.cpp")
  add_library(steppe::${name} ALIAS steppe-${name})
  target_link_libraries(steppe-${name} PUBLIC steppe::steppe PRIVATE ${ARGN})
  target_compile_definitions(steppe-${name} PUBLIC STEPPE_COMPILED)
  set_target_properties(steppe-${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  # LibTorch's package requires it on its own target only.
  if(NOT CMAKE_CXX_STANDARD AND NOT "${torch_version}" VERSION_LESS 2.10)
    target_compile_features(steppe-${name} PUBLIC cxx_std_20)
  endif()
endfunction()

function(steppe_add_compiled_libraries include_dir torch_version)
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if("CXX" IN_LIST languages)
    steppe_add_compiled(compiled "${include_dir}" "${torch_version}")
  endif()
  if("CUDA" IN_LIST languages)
    steppe_add_compiled(compiled_cuda "${include_dir}" "${torch_version}" steppe::cuda)
    target_compile_definitions(steppe-compiled_cuda PUBLIC STEPPE_COMPILED_WITH_CUDA)
  endif()
endfunction()
