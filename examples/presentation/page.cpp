// SPDX-License-Identifier: MIT
#include "presentation/page.hpp"

#include "presentation/files.hpp"

namespace presentation {
namespace {

constexpr char kStyle[] =
    "body{font:16px/1.5 Helvetica,Arial,sans-serif;color:#222;max-width:1240px;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0}th,td{padding:.2em .9em;text-align:right;border-bottom:1px solid "
    "#ddd}"
    "th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto}pre{background:#f6f6f6;padding:.6em}"
    "figure{margin:1.5em 0}figcaption{color:#444}p{max-width:50em}@media print{figure,table{break-inside:avoid}}";

std::string link(const std::string& file) { return "<a href=\"" + escaped(file) + "\">" + escaped(file) + "</a>"; }

}  // namespace

void Page::add(const std::string& html) {
  body_ += html;
  write_file(file(), "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>" +
                         escaped(title_) + "</title>\n<style>" + kStyle +
                         "</style>\n</head>\n<body>\n<!-- section -->\n<h1>" + escaped(title_) + "</h1>\n" + body_ +
                         "<!-- /section -->\n</body>\n</html>\n");
}

void Page::heading(const std::string& words) { add("<h2>" + escaped(words) + "</h2>\n"); }

void Page::paragraph(const std::string& words) { add("<p>" + escaped(words) + "</p>\n"); }

void Page::verbatim(const std::string& text) { add("<pre>" + escaped(text) + "</pre>\n"); }

void Page::table(const std::string& caption, const Table& table) {
  add("<figure><figcaption>" + escaped(caption) + "</figcaption>\n" + html_of(table) + "</figure>\n");
}

void Page::figure(const std::string& name, const std::string& caption, const Figure& figure, const Table& numbers) {
  const std::string svg = figure.svg();
  write_file(folder_ / (name + ".svg"), svg);
  write_file(folder_ / (name + ".csv"), csv_of(numbers));
  add("<figure>\n" + svg + "<figcaption>" + escaped(caption) + " (" + link(name + ".svg") + ", " + link(name + ".csv") +
      ")</figcaption></figure>\n");
}

void Page::data(const std::string& name, const Table& numbers) {
  write_file(folder_ / (name + ".csv"), csv_of(numbers));
  add("<p>" + link(name + ".csv") + "</p>\n");
}

}  // namespace presentation
