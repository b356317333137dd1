// Tables as text, as CSV, as HTML.
// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

namespace presentation {

/// Rows of equal length; the first `heads` of them name the columns.
struct Table {
  std::vector<std::vector<std::string>> rows;
  size_t heads = 1;
};

/// In columns, the first one to the left, the others to the right.
std::string text_of(const Table& table);
/// A number for a CSV file: nine significant digits; empty if it is not finite.
std::string cell(double value);
/// One line per row; cells with commas, quotes or line ends are quoted.
std::string csv_of(const Table& table);
std::string html_of(const Table& table);

/// &, < and > escaped for HTML and SVG.
std::string escaped(const std::string& words);

}  // namespace presentation
