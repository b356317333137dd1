# Install tree and package: find_package(steppe) gives steppe::steppe, steppe::compiled, steppe::gloo, steppe::cuda and
# steppe::compiled_cuda.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(steppe_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/steppe")
install(DIRECTORY include/steppe DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/steppe")
install(TARGETS steppe steppe-cuda steppe-gloo EXPORT steppe-targets)
install(EXPORT steppe-targets FILE steppe-targets.cmake NAMESPACE steppe:: DESTINATION "${steppe_package_dir}")
configure_package_config_file(cmake/steppe-config.cmake.in "${PROJECT_BINARY_DIR}/steppe-config.cmake"
  INSTALL_DESTINATION "${steppe_package_dir}" PATH_VARS CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/steppe-config-version.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/Compiled.cmake "${PROJECT_BINARY_DIR}/steppe-config.cmake" "${PROJECT_BINARY_DIR}/steppe-config-version.cmake"
  DESTINATION "${steppe_package_dir}")
configure_file(packaging/steppe.pc.in "${PROJECT_BINARY_DIR}/steppe.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/steppe.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
