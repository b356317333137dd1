// SPDX-License-Identifier: MIT
#include "presentation/command_line.hpp"

#include <cmath>
#include <cstdlib>
#include <memory>

namespace presentation {
namespace {

/// The type after the name, the default after the description, nothing else.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_type_size() == 0 ? "" : " " + option->get_type_name();
  }
  std::string make_option_desc(const CLI::Option* option) const override {
    const std::string otherwise = option->get_default_str();
    return option->get_description() + (otherwise.empty() ? "" : " (default: " + otherwise + ")");
  }
};

}  // namespace

CommandLine::CommandLine(const std::string& name, const std::string& description, const std::string& foot)
    : CLI::App(description, name) {
  footer(foot);
  formatter(std::make_shared<HelpFormatter>());
  set_help_flag("-h,--help", "Print this help");
}

std::optional<int> CommandLine::read(int argc, const char* const* argv, const std::function<void()>& resolve) {
  try {
    parse(argc, argv);
    if (resolve) resolve();
  } catch (const CLI::ParseError& error) {
    return exit(error);
  }
  return std::nullopt;
}

CLI::Validator number(double low, double high, const std::string& range) {
  return CLI::Validator(
      [=](const std::string& text) {
        const double value = std::strtod(text.c_str(), nullptr);
        return value >= low && value <= high ? std::string() : "must be " + range + ", not " + text;
      },
      "");
}

CLI::Validator count() { return number(1.0, 1e9, "a number from 1 on"); }
CLI::Validator not_negative() { return number(0.0, 1e9, "0 or more"); }
CLI::Validator share() { return number(0.0, std::nextafter(1.0, 0.0), "at least 0 and under 1"); }
CLI::Validator one_of(const std::vector<std::string>& names) { return CLI::IsMember(names).description(""); }

void add_study_options(CommandLine& app, StudyOptions& options, const std::string& quick_means) {
  const char* group = "Running and results";
  app.add_flag("--quick", options.quick, quick_means)->group(group);
  app.add("--seed", options.seed, "Seed of everything that is random", "S", group)
      ->check(number(0.0, 1e15, "a whole number from 0 on"))
      ->capture_default_str();
  app.add("--threads", options.threads, "CPU threads (default: LibTorch's choice)", "N", group)
      ->check(number(1, 1024, "from 1 to 1024"));
  app.add("--out", options.out, "Folder of the page, the pictures and the CSV files", "DIR", group)
      ->capture_default_str();
}

}  // namespace presentation
