# download.cmake with small archives in place of the official ones. SCRIPT and WORK_DIR are given.
cmake_minimum_required(VERSION 3.21)
file(REMOVE_RECURSE "${WORK_DIR}")
file(MAKE_DIRECTORY "${WORK_DIR}")
file(WRITE "${WORK_DIR}/source/cifar-10-batches-bin/test_batch.bin" "images")
file(WRITE "${WORK_DIR}/source/holidays/beach.bin" "images")
foreach(folder cifar-10-batches-bin holidays)
  execute_process(COMMAND "${CMAKE_COMMAND}" -E tar czf "${WORK_DIR}/${folder}.tar.gz" "${folder}"
    WORKING_DIRECTORY "${WORK_DIR}/source" COMMAND_ERROR_IS_FATAL ANY)
  file(MD5 "${WORK_DIR}/${folder}.tar.gz" md5_of_${folder})
endforeach()
set(cache "${WORK_DIR}/cache")
set(ENV{STEPPE_CACHE_DIR} "${cache}")

# Expects a success, or an error with these words, and no partial data set in the cache.
function(expect words archive md5)
  execute_process(COMMAND "${CMAKE_COMMAND}" -D DATASET=cifar-10 -D "URL=file://${WORK_DIR}/${archive}" -D "MD5=${md5}" -P "${SCRIPT}"
    RESULT_VARIABLE code OUTPUT_VARIABLE said ERROR_VARIABLE said)
  string(REGEX REPLACE "[ \n]+" " " said "${said}")
  string(FIND "${said}" "${words}" at)
  file(GLOB left "${cache}/*.part")
  if(at EQUAL -1 OR left)
    message(FATAL_ERROR "Expected '${words}' and no remains (${left}): ${said}")
  endif()
  if(words MATCHES "^Ready" AND NOT code EQUAL 0 OR NOT words MATCHES "^Ready" AND code EQUAL 0)
    message(FATAL_ERROR "Code ${code}: ${said}")
  endif()
endfunction()

expect("steppe-cifar --data" missing.tar.gz 0)
expect("has the MD5 checksum ${md5_of_cifar-10-batches-bin}" cifar-10-batches-bin.tar.gz 0)
expect("The archive has no folder cifar-10-batches-bin" holidays.tar.gz "${md5_of_holidays}")
if(EXISTS "${cache}/cifar-10-batches-bin")
  message(FATAL_ERROR "A failure left a data set behind")
endif()
# What a killed download leaves is cleared away.
file(WRITE "${cache}/cifar-10-batches-bin.part/archive.tar.gz" "half")
expect("Ready: steppe-cifar --data ${cache}/cifar-10-batches-bin" cifar-10-batches-bin.tar.gz "${md5_of_cifar-10-batches-bin}")
file(READ "${cache}/cifar-10-batches-bin/test_batch.bin" content)
if(NOT content STREQUAL "images")
  message(FATAL_ERROR "Unpacked was: ${content}")
endif()
# Once there, nothing is downloaded again.
expect("Ready: steppe-cifar --data" missing.tar.gz 0)
