// SPDX-License-Identifier: MIT
#include "presentation/files.hpp"

#include <fstream>
#include <initializer_list>
#include <stdexcept>
#include <system_error>

namespace presentation {

namespace fs = std::filesystem;

void make_writable(const fs::path& folder, const std::string& option) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  const fs::path probe = folder / ".steppe-probe";
  const bool written = !failed && static_cast<bool>(std::ofstream(probe) << "probe" << std::flush);
  fs::remove(probe, failed);
  if (!written)
    throw std::runtime_error("cannot write into " + folder.string() + "; choose another place with " + option);
}

void write_file(const fs::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  if (!(out << text << std::flush)) throw std::runtime_error("cannot write " + file.string());
}

fs::path bundled_data(const std::string& example) {
  std::error_code unknown;
  // Linux's name of the running program; other systems need the source tree.
  const fs::path program = fs::read_symlink("/proc/self/exe", unknown);
  const fs::path installed =
      program.empty() ? program : program.parent_path() / STEPPE_EXAMPLES_INSTALLED / example / "data";
  const fs::path in_source = fs::path(STEPPE_EXAMPLES_SOURCE) / example / "data";
  for (const fs::path& folder : {installed, in_source})
    if (fs::is_directory(folder, unknown)) return folder;
  throw std::runtime_error("the example's data are neither in " + installed.lexically_normal().string() + " nor in " +
                           in_source.string() + "; name a folder with --data");
}

}  // namespace presentation
