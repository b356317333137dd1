# The target `docs`: an HTML reference of the public headers with the pages of docs/ in it, made by Doxygen.
find_program(STEPPE_DOXYGEN doxygen)
mark_as_advanced(STEPPE_DOXYGEN)
if(NOT STEPPE_DOXYGEN)
  add_custom_target(docs
    COMMAND "${CMAKE_COMMAND}" -E echo "The target docs needs Doxygen: install it and configure again"
    COMMAND "${CMAKE_COMMAND}" -E false VERBATIM)
  return()
endif()

file(GLOB_RECURSE steppe_pages "${PROJECT_SOURCE_DIR}/docs/*.md" "${PROJECT_SOURCE_DIR}/examples/*README.md")
foreach(page README.md benchmarks/README.md CONTRIBUTING.md CHANGELOG.md)
  list(APPEND steppe_pages "${PROJECT_SOURCE_DIR}/${page}")
endforeach()
# Of the engine, only what a program calls; CONTRIBUTING.md describes the rest.
file(GLOB steppe_inner_headers "${PROJECT_SOURCE_DIR}/include/steppe/step/*.hpp")
list(FILTER steppe_inner_headers EXCLUDE REGEX "/(two_pass|gradient_exchange|step_report)\\.hpp$")
foreach(name rules traits state skippable device_numbers hidden_gradients)
  list(APPEND steppe_inner_headers "${PROJECT_SOURCE_DIR}/include/steppe/base/${name}.hpp")
endforeach()
list(JOIN steppe_pages "\" \"" steppe_pages)
list(JOIN steppe_inner_headers "\" \"" steppe_inner_headers)
configure_file("${PROJECT_SOURCE_DIR}/docs/Doxyfile.in" "${PROJECT_BINARY_DIR}/docs/Doxyfile" @ONLY)
add_custom_target(docs
  COMMAND "${STEPPE_DOXYGEN}" "${PROJECT_BINARY_DIR}/docs/Doxyfile"
  COMMAND "${CMAKE_COMMAND}" -E echo "docs/html/index.html is written" VERBATIM)
