// Result files.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>

namespace presentation {

/// Makes the folder and checks that it can be written to; the error names the option that sets another one.
void make_writable(const std::filesystem::path& folder, const std::string& option);

/// Errors: a file that cannot be written.
void write_file(const std::filesystem::path& file, const std::string& text);

/// The folder of an example's bundled data: the installed one beside the running program, else the source tree's.
/// Errors: neither exists; the message names both.
std::filesystem::path bundled_data(const std::string& example);

}  // namespace presentation
