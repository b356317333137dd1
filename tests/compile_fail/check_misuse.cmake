# Compiles SOURCE with MISUSE and searches the compiler's errors for the expected words.
cmake_minimum_required(VERSION 3.21)
file(STRINGS "${SOURCE}" expectation REGEX "^// expect: " LIMIT_COUNT 1)
string(REPLACE "// expect: " "" expectation "${expectation}")
if(NOT expectation)
  message(FATAL_ERROR "${SOURCE} has no line '// expect: text'")
endif()

# Flags that are the misuse.
file(STRINGS "${SOURCE}" flags REGEX "^// flags: " LIMIT_COUNT 1)
string(REPLACE "// flags: " "" flags "${flags}")
separate_arguments(flags)

list(TRANSFORM INCLUDES PREPEND -I OUTPUT_VARIABLE include_flags)
execute_process(COMMAND "${CXX}" -std=c++${STANDARD} -fsyntax-only -DMISUSE ${flags} ${include_flags} "${SOURCE}"
  RESULT_VARIABLE failed ERROR_VARIABLE errors)
if(NOT failed)
  message(FATAL_ERROR "${SOURCE} compiles with MISUSE, and must not")
endif()
if(NOT errors MATCHES "error: [^\n]*${expectation}")
  message(FATAL_ERROR "No error matches '${expectation}':\n${errors}")
endif()
