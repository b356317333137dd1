// SPDX-License-Identifier: MIT
#include "presentation/figure.hpp"
#include "../../contains.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <regex>
#include <string>

#include "flaw_of.hpp"

namespace presentation {
namespace {

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

TEST(Figure, NamesItsAxesCurvesAndPanels) {
  Figure figure("Title", "what & how");
  figure.add(
      Panel{"First", {"time (s)"}, {"loss"}, {{"sgd", {0, 1, 2}, {3, 2, 1}, {}, {}}, {"sam", {0, 1}, {1, 0}, {}, {}}}});
  figure.add(Panel{"Second", {"time (s)"}, {}, {{"sam", {0, 1}, {1, 0}, {0, 0}, {2, 1}}}});
  const std::string svg = figure.svg();
  EXPECT_EQ(flaw_of(svg), "");
  for (const char* words :
       {">Title<", "what &amp; how", ">First<", ">Second<", ">time (s)<", ">loss<", ">sgd<", ">sam<"})
    EXPECT_TRUE(contains(svg, words)) << words;
  EXPECT_EQ(count_of(svg, ">sam<"), 1U) << "one legend for all panels";
  EXPECT_EQ(count_of(svg, "<polygon"), 1U) << "the band";
}

TEST(Figure, IsAsWideAsItsLegend) {
  Panel panel{"First", {"x"}, {"y"}, {}};
  for (const char* name : {"a rather long name, one", "a rather long name, two", "a rather long name, three",
                           "a rather long name, four", "a rather long name, five"})
    panel.series.push_back({name, {0, 1}, {0, 1}, {}, {}, Series::Style::Line});
  Figure figure("Title", "");
  figure.add(panel);
  const std::string svg = figure.svg();
  std::smatch width, last;
  ASSERT_TRUE(std::regex_search(svg, width, std::regex("viewBox=\"0 0 ([0-9]+)")));
  ASSERT_TRUE(std::regex_search(svg, last, std::regex("<text x=\"([0-9.]+)\" y=\"72.0\" >a rather long name, five")));
  EXPECT_GT(std::stod(width[1]), std::stod(last[1]) + 24 * 7);
}

TEST(Figure, ACurveIsBrokenWhereAValueIsNotFinite) {
  Figure figure("", "");
  figure.add(Panel{"", {"x"}, {}, {{"a", {0, 1, 2, 3, 4}, {1, 2, kNone, 2, 1}, {}, {}}}});
  const std::string svg = figure.svg();
  EXPECT_EQ(count_of(svg, "<polyline"), 2U);
  EXPECT_FALSE(contains(svg, "nan"));
}

TEST(Figure, ALogarithmicAxisHasDecadesAndLeavesOutWhatIsNotOverZero) {
  Figure figure("", "");
  figure.add(Panel{"", {"x"}, {"y", true}, {{"a", {0, 1, 2, 3}, {1e-4, 0.0, 1.0, 1e4}, {}, {}}}});
  const std::string svg = figure.svg();
  for (const char* words : {">1e-4<", ">1<", ">1e4<"}) EXPECT_TRUE(contains(svg, words)) << words << svg;
  EXPECT_EQ(count_of(svg, "<polyline"), 2U);
}

TEST(Figure, AWholeAxisHasNoFractions) {
  Figure figure("", "");
  figure.add(Panel{"", {"epoch", false, {}, /*whole=*/true}, {}, {{"a", {1, 2, 3}, {7, 7, 7}, {}, {}}}});
  const std::string svg = figure.svg();
  for (const char* words : {">1<", ">2<", ">3<"}) EXPECT_EQ(count_of(svg, words), 1U) << words;
  EXPECT_FALSE(contains(svg, ">1.5<"));
}

TEST(Figure, EqualOrAbsentValuesStillHaveAnAxis) {
  for (const std::vector<double>& values : {std::vector<double>{}, std::vector<double>{0, 0}, std::vector<double>{7, 7},
                                            std::vector<double>{1e300, 1e300}, std::vector<double>{kNone, kNone}}) {
    Figure figure("", "");
    figure.add(Panel{"", {"x"}, {"y"}, {{"a", std::vector<double>(values.size(), 1.0), values, {}, {}}}});
    figure.add(Panel{"", {"x", true}, {"y", true}, {{"a", std::vector<double>(values.size(), 1.0), values, {}, {}}}});
    const std::string svg = figure.svg();
    EXPECT_EQ(flaw_of(svg), "");
    EXPECT_FALSE(contains(svg, "nan") || contains(svg, "inf"));
  }
  EXPECT_EQ(flaw_of(Figure("", "").svg()), "");
}

TEST(Figure, CategoriesNameThePlacesOfMarks) {
  Figure figure("", "");
  figure.add(Panel{"", {"", false, {"one", "two"}}, {}, {{"a", {0, 1, 1}, {1, 2, 3}, {}, {}, Series::Style::Marks}}});
  const std::string svg = figure.svg();
  EXPECT_TRUE(contains(svg, ">one<") && contains(svg, ">two<"));
  EXPECT_EQ(count_of(svg, "fill=\"none\" stroke=\"#222222\"/>"), 3U);
}

TEST(Figure, AMapHasARectanglePerValueAndRisesUpwardsAndToTheRight) {
  Figure figure("", "");
  figure.add(Map{"Loss", {"first"}, {"second"}, "loss", false, {0, 1, 2}, {0, 1}, {{0, 1}, {2, 3}, {4, kNone}}});
  const std::string svg = figure.svg();
  EXPECT_EQ(flaw_of(svg), "");
  EXPECT_TRUE(contains(svg, "loss 0 to 4"));
  EXPECT_TRUE(contains(svg, "#ffffff\"/>\n<path")) << "what is not finite stays white";
  std::smatch lowest;  // the first value's place: left, at the bottom
  ASSERT_TRUE(std::regex_search(svg, lowest, std::regex("<rect x=\"74.0\" y=\"260.0\"[^>]*#fdf5d0")));
}

TEST(Figure, LevelLinesRunWhereTheValueIs) {
  Map map{"", {"x"}, {"y"}, "v", false, {0, 1}, {0, 1}, {{0, 0}, {1, 1}}};
  Figure figure("", "");
  figure.add(map);
  const std::string svg = figure.svg();
  // The value is x: the level 0.5 is a vertical line in the middle of the tile of 320 pixels from 74 on.
  EXPECT_TRUE(contains(svg, "M234.0,335.0L234.0,185.0") || contains(svg, "M234.0,185.0L234.0,335.0")) << svg;
}

}  // namespace
}  // namespace presentation
