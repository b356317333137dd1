// What the command lines of the examples have in common.
// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "presentation/program.hpp"

namespace presentation {

/// A program with -h,--help and defaults shown after each option's description.
class CommandLine : public CLI::App {
 public:
  CommandLine(const std::string& name, const std::string& description, const std::string& footer = "");

  /// Adds an option under `group`; the help shows `type` after its name.
  template <class Value>
  CLI::Option* add(const std::string& name, Value& value, const std::string& description, const char* type,
                   const char* group) {
    return add_option(name, value, description)->type_name(type)->group(group);
  }

  /// Prints help or an error and returns the exit code, or nothing if the program is to continue. resolve() may throw
  /// CLI::ValidationError, too.
  std::optional<int> read(int argc, const char* const* argv, const std::function<void()>& resolve = nullptr);
};

/// low <= value <= high; NaN is out of range. `range` is for the error: "must be RANGE, not 7".
CLI::Validator number(double low, double high, const std::string& range);
CLI::Validator count();         ///< from 1 on
CLI::Validator not_negative();  ///< 0 or more
CLI::Validator share();         ///< [0, 1)
CLI::Validator one_of(const std::vector<std::string>& names);

/// --quick, --seed, --threads, --out.
void add_study_options(CommandLine& app, StudyOptions& options, const std::string& quick_means);

}  // namespace presentation
