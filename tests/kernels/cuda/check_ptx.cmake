# With --use_fast_math the kernels are compiled to instructions that neither flush subnormal numbers nor approximate.
cmake_minimum_required(VERSION 3.21)
foreach(architecture 90 89)  # sums in double, and in pairs of floats
  execute_process(COMMAND "${NVCC}" -std=c++17 -arch=compute_${architecture} --use_fast_math -ptx -I "${INCLUDE}"
      "${INCLUDE}/steppe/kernels/cuda/cuda.cu" -o "${OUT}"
    RESULT_VARIABLE failed ERROR_VARIABLE errors)
  if(failed)
    message(FATAL_ERROR "${errors}")
  endif()
  file(STRINGS "${OUT}" changed REGEX "\\.(ftz|approx)")
  if(changed)
    list(GET changed 0 first)
    list(LENGTH changed count)
    message(FATAL_ERROR "${count} instructions for ${architecture} flush or approximate, the first of them: ${first}")
  endif()
endforeach()
