# Libraries of the tests and examples only: the system's when it has them, else provided.
include_guard(GLOBAL)

# Defines GTest::gtest from the first of: the folder FETCHCONTENT_SOURCE_DIR_GOOGLETEST, an installed package, Debian's
# source package, a download.
function(steppe_need_googletest)
  set(source "${FETCHCONTENT_SOURCE_DIR_GOOGLETEST}")
  if(NOT source)
    # --gtest_brief came with 1.11.
    find_package(GTest 1.11 CONFIG QUIET)
    if(TARGET GTest::gtest)
      message(STATUS "GoogleTest ${GTest_VERSION} in ${GTest_DIR}")
      set_target_properties(GTest::gtest PROPERTIES IMPORTED_GLOBAL TRUE)
      return()
    endif()
    if(EXISTS /usr/src/googletest/googletest/src/gtest-all.cc)
      set(source /usr/src/googletest)
    else()
      steppe_provide_googletest(source)
    endif()
  endif()

  file(GLOB_RECURSE main_file "${source}/*gtest-all.cc")
  if(NOT main_file)
    message(FATAL_ERROR "There is no googletest/src/gtest-all.cc in '${source}' (FETCHCONTENT_SOURCE_DIR_GOOGLETEST)")
  endif()
  list(GET main_file 0 main_file)
  get_filename_component(root "${main_file}/../.." ABSOLUTE)
  message(STATUS "GoogleTest from source in ${root}")
  find_package(Threads REQUIRED)
  add_library(steppe-googletest STATIC EXCLUDE_FROM_ALL "${main_file}")
  target_include_directories(steppe-googletest SYSTEM PUBLIC "${root}/include" PRIVATE "${root}")
  target_link_libraries(steppe-googletest PUBLIC Threads::Threads)
  # GCC 12 gives false warnings about GoogleTest's strings, once they are inlined into a test.
  target_compile_options(steppe-googletest INTERFACE
    "$<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds;-Wno-restrict;-Wno-stringop-overflow>")
  add_library(GTest::gtest ALIAS steppe-googletest)
endfunction()

function(steppe_provide_googletest out)
  include("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/Wheels.cmake")
  steppe_provide(home
    NAME "GoogleTest"
    PINS "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/googletest-1.14.0.txt"
    SIZE "under 1 MB"
    PYTHON 3.11 PLATFORMS manylinux_2_28_x86_64
    FILES "*/gtest_vendor/src/*" "*/gtest_vendor/include/*" "*/googletest/src/*" "*/googletest/include/*" "*LICENSE*"
    PROBE gtest-all.cc
    ARCHIVE https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz
    ARCHIVE_SHA256 81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2
    WAYS_OUT "Options: install your system's package (Debian and Ubuntu: libgtest-dev); set \
FETCHCONTENT_SOURCE_DIR_GOOGLETEST to a folder with GoogleTest's source; copy the cache folder of a machine where this worked \
and name the copy in the environment variable STEPPE_CACHE_DIR; or configure with -DSTEPPE_BUILD_TESTS=OFF.")
  set(${out} "${home}" PARENT_SCOPE)
endfunction()

# Defines CLI11::CLI11 from the folder FETCHCONTENT_SOURCE_DIR_CLI11, an installed package, or third_party/.
function(steppe_need_cli11)
  set(include_dir "${FETCHCONTENT_SOURCE_DIR_CLI11}/include")
  if(NOT FETCHCONTENT_SOURCE_DIR_CLI11)
    find_package(CLI11 2.1 CONFIG QUIET)
    if(TARGET CLI11::CLI11)
      message(STATUS "CLI11 ${CLI11_VERSION} in ${CLI11_DIR}")
      set_target_properties(CLI11::CLI11 PROPERTIES IMPORTED_GLOBAL TRUE)
      return()
    endif()
    set(include_dir "${PROJECT_SOURCE_DIR}/third_party/CLI11")
  endif()
  if(NOT EXISTS "${include_dir}/CLI/CLI.hpp")
    message(FATAL_ERROR "There is no CLI/CLI.hpp in '${include_dir}' (FETCHCONTENT_SOURCE_DIR_CLI11)")
  endif()
  message(STATUS "CLI11 in ${include_dir}")
  add_library(CLI11::CLI11 INTERFACE IMPORTED GLOBAL)
  set_target_properties(CLI11::CLI11 PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include_dir}")
endfunction()
