# steppe::compiled: what no template needs, as a library that the build of whoever links it compiles once, with that
# build's LibTorch and flags. steppe::compiled_cuda is the same with the CUDA kernels; the language CUDA must be enabled.
include_guard(GLOBAL)

function(steppe_add_compiled name source)
  if(TARGET steppe-${name})
    return()
  endif()
  add_library(steppe-${name} STATIC EXCLUDE_FROM_ALL "${source}")
  add_library(steppe::${name} ALIAS steppe-${name})
  target_link_libraries(steppe-${name} PUBLIC steppe::steppe PRIVATE ${ARGN})
  target_compile_definitions(steppe-${name} PUBLIC STEPPE_COMPILED)
  set_target_properties(steppe-${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

function(steppe_add_compiled_libraries include_dir)
  steppe_add_compiled(compiled "${include_dir}/steppe/compiled.cpp")
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if("CUDA" IN_LIST languages)
    steppe_add_compiled(compiled_cuda "${include_dir}/steppe/compiled.cpp" steppe::cuda)
    target_compile_definitions(steppe-compiled_cuda PUBLIC STEPPE_COMPILED_WITH_CUDA)
  endif()
endfunction()
