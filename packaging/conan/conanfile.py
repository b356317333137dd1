"""Packages the checkout that this file lies in: conan create packaging/conan"""
import os
import re

from conan import ConanFile
from conan.tools.files import copy, load


class Steppe(ConanFile):
    name = "steppe"
    description = "Sharpness-aware optimizers for LibTorch"
    license = "MIT"
    package_type = "header-library"
    no_copy_source = True

    @property
    def _root(self):
        return os.path.normpath(os.path.join(self.recipe_folder, "..", ".."))

    def set_version(self):
        text = load(self, os.path.join(self._root, "include", "steppe", "version.hpp"))
        self.version = re.search(r'define STEPPE_VERSION "([0-9.]+)"', text).group(1)

    def export_sources(self):
        copy(self, "LICENSE", self._root, self.export_sources_folder)
        copy(self, "include/*", self._root, self.export_sources_folder)

    def package(self):
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        copy(self, "include/*", self.source_folder, self.package_folder)

    def package_id(self):
        self.info.clear()

    def package_info(self):
        # LibTorch is the program's: its own target, found by the program, stands beside this one.
        self.cpp_info.set_property("cmake_target_name", "steppe::steppe")
        self.cpp_info.set_property("pkg_config_name", "steppe")
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
