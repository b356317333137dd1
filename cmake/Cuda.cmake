# steppe::cuda adds the CUDA kernels, one source file, to targets that link it; the language CUDA must be enabled there.
include_guard(GLOBAL)

add_library(steppe-cuda INTERFACE)
add_library(steppe::cuda ALIAS steppe-cuda)
set_target_properties(steppe-cuda PROPERTIES EXPORT_NAME cuda)
target_link_libraries(steppe-cuda INTERFACE steppe)
target_compile_definitions(steppe-cuda INTERFACE STEPPE_WITH_CUDA)
target_sources(steppe-cuda INTERFACE
  "$<BUILD_INTERFACE:${CMAKE_CURRENT_LIST_DIR}/../include/steppe/kernels/cuda/cuda.cu>"
  "$<INSTALL_INTERFACE:include/steppe/kernels/cuda/cuda.cu>")

# Sets `out` to nvcc, or to a name that ends in NOTFOUND.
function(steppe_find_nvcc out)
  find_program(STEPPE_NVCC nvcc HINTS "${CMAKE_CUDA_COMPILER}" ENV CUDACXX ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin
    DOC "The compiler of the CUDA kernels, where there is one")
  set(${out} "${STEPPE_NVCC}" PARENT_SCOPE)
endfunction()
