// SPDX-License-Identifier: MIT
#include "presentation/table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "flaw_of.hpp"

namespace presentation {
namespace {

TEST(Table, TheFirstColumnStandsToTheLeftAndTheOthersToTheRight) {
  EXPECT_EQ(text_of({{{"", "±"}, {"long", "10.5"}, {"x", "3"}}}), "         ±\nlong  10.5\nx        3\n");
}

TEST(Table, CsvQuotesWhatNeedsIt) {
  EXPECT_EQ(csv_of({{{"a", "b,c"}, {"say \"x\"", "1"}}}), "a,\"b,c\"\n\"say \"\"x\"\"\",1\n");
}

TEST(Table, ACellKeepsNineDigitsAndLeavesTheUnknownEmpty) {
  EXPECT_EQ(cell(1.0 / 3.0), "0.333333333");
  EXPECT_EQ(cell(std::nan("")), "");
  EXPECT_EQ(cell(std::numeric_limits<double>::infinity()), "");
}

TEST(Table, HtmlHasItsHeadsAndEscapes) {
  Table table{{{"a<b", "c"}, {"unit", ""}, {"1", "2"}}, 2};
  const std::string html = html_of(table);
  EXPECT_EQ(flaw_of(html), "");
  EXPECT_NE(html.find("<th>a&lt;b</th><th>c</th>"), std::string::npos);
  EXPECT_NE(html.find("<th>unit</th>"), std::string::npos);
  EXPECT_NE(html.find("<td>1</td><td>2</td>"), std::string::npos);
}

}  // namespace
}  // namespace presentation
