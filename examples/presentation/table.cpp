// SPDX-License-Identifier: MIT
#include "presentation/table.hpp"

#include <algorithm>
#include <cmath>

#include "presentation/formatted.hpp"

namespace presentation {
namespace {

/// Characters, not bytes.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? "\"\"" : std::string(1, c);
  return result + "\"";
}

}  // namespace

std::string text_of(const Table& table) {
  std::vector<size_t> widths;
  for (const auto& row : table.rows) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - width_of(row[i]), ' ');
      text += i == 0 ? row[i] + gap : "  " + gap + row[i];
    }
    text += '\n';
  }
  return text;
}

std::string cell(double value) { return std::isfinite(value) ? formatted("%.9g", value) : ""; }

std::string csv_of(const Table& table) {
  std::string text;
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) text += (i == 0 ? "" : ",") + quoted(row[i]);
    text += '\n';
  }
  return text;
}

std::string html_of(const Table& table) {
  std::string text = "<table>\n";
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const char* kind = i < table.heads ? "th" : "td";
    text += "<tr>";
    for (const std::string& words : table.rows[i])
      text += std::string("<") + kind + ">" + escaped(words) + "</" + kind + ">";
    text += "</tr>\n";
  }
  return text + "</table>\n";
}

std::string escaped(const std::string& words) {
  std::string text;
  for (const char c : words) text += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return text;
}

}  // namespace presentation
