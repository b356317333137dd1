// One HTML page with a program's tables and pictures.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "presentation/figure.hpp"
#include "presentation/table.hpp"

namespace presentation {

/// A figure with the numbers it was drawn from.
struct Picture {
  Figure figure;
  Table numbers;
};

/// The results of a program. Everything is in the page itself; beside it are the pictures, and a CSV file for each of
/// them. A page of several programs takes what is between the lines <!-- section --> and <!-- /section -->.
class Page {
 public:
  /// Files go into `folder`. Each call writes at once and rewrites the page, so that results survive a later failure.
  Page(std::filesystem::path folder, std::string title) : folder_(std::move(folder)), title_(std::move(title)) {}

  void heading(const std::string& words);
  void paragraph(const std::string& words);
  /// Unchanged, in a monospaced font.
  void verbatim(const std::string& text);
  void table(const std::string& caption, const Table& table);
  /// NAME.svg, and NAME.csv with `data`, its numbers.
  void figure(const std::string& name, const std::string& caption, const Figure& figure, const Table& data);
  void figure(const std::string& name, const std::string& caption, const Picture& picture) {
    figure(name, caption, picture.figure, picture.numbers);
  }
  /// NAME.csv, linked by its name.
  void data(const std::string& name, const Table& data);

  std::filesystem::path file() const { return folder_ / "index.html"; }

 private:
  void add(const std::string& html);

  std::filesystem::path folder_;
  std::string title_, body_;
};

}  // namespace presentation
