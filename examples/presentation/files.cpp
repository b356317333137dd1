// SPDX-License-Identifier: MIT
#include "presentation/files.hpp"

#include <fstream>
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
    throw std::runtime_error("cannot write into " + folder.string() + "; " + option + " names another place");
}

void write_file(const fs::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  if (!(out << text << std::flush)) throw std::runtime_error("cannot write " + file.string());
}

}  // namespace presentation
