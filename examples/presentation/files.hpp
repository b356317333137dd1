// Result files.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>

namespace presentation {

/// Makes the folder and tries that it can be written to; the error says that `option` names another place.
void make_writable(const std::filesystem::path& folder, const std::string& option);

/// Errors: a file that cannot be written.
void write_file(const std::filesystem::path& file, const std::string& text);

}  // namespace presentation
