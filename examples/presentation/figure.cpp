// SPDX-License-Identifier: MIT
#include "presentation/figure.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "presentation/formatted.hpp"
#include "presentation/heat_map.hpp"
#include "presentation/tile.hpp"

namespace presentation {
namespace {

/// Distinguishable without colours too: by dashes and marks.
struct Look {
  const char *colour, *dashes, *mark;  ///< the mark as a path around 0,0
};
constexpr std::array<Look, 6> kLooks = {{
    {"#222222", "none", "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z"},
    {"#0072b2", "8 3", "M-4,-4h8v8h-8z"},
    {"#d55e00", "2 2.5", "M0,-5l5,9h-10z"},
    {"#009e73", "9 3 2 3", "M0,-5.5l5.5,5.5l-5.5,5.5l-5.5,-5.5z"},
    {"#aa4499", "5 2", "M0,5l5,-9h-10z"},
    {"#8a6d00", "12 3", "M-5,-1.5h10v3h-10z"},
}};

std::string mark(double x, double y, const Look& look, const char* fill) {
  return formatted("<path d=\"%s\" transform=\"translate(%.1f,%.1f)\" fill=\"%s\" stroke=\"%s\"/>\n", look.mark, x, y,
                   fill, look.colour);
}

/// The parts of a series that can be drawn, as SVG points.
std::vector<std::string> stretches(const std::vector<double>& xs, const std::vector<double>& ys, const Scale& x,
                                   const Scale& y) {
  std::vector<std::string> all;
  bool open = false;
  for (size_t i = 0; i < xs.size() && i < ys.size(); ++i) {
    if (!x.shows(xs[i]) || !y.shows(ys[i])) {
      open = false;
      continue;
    }
    if (!open) all.emplace_back();
    open = true;
    all.back() += formatted("%.1f,%.1f ", x(xs[i]), y(ys[i]));
  }
  return all;
}

std::string band(const Series& series, const Scale& x, const Scale& y, const Look& look) {
  std::string points, back;
  for (size_t i = 0; i < series.x.size() && i < series.low.size() && i < series.high.size(); ++i) {
    if (!x.shows(series.x[i]) || !y.shows(series.low[i]) || !y.shows(series.high[i])) continue;
    points += formatted("%.1f,%.1f ", x(series.x[i]), y(series.high[i]));
    back = formatted("%.1f,%.1f ", x(series.x[i]), y(series.low[i])) + back;
  }
  if (points.empty()) return "";
  return formatted("<polygon fill=\"%s\" fill-opacity=\"0.13\" points=\"", look.colour) + points + back + "\"/>\n";
}

std::string drawn(const Series& series, const Scale& x, const Scale& y, const Look& look) {
  std::string svg;
  const size_t count = std::min(series.x.size(), series.y.size());
  if (series.style == Series::Style::Line) {
    for (const std::string& points : stretches(series.x, series.y, x, y))
      svg += formatted("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"",
                       look.colour, look.dashes) +
             points + "\"/>\n";
    for (size_t i = count; i-- > 0;)
      if (x.shows(series.x[i]) && y.shows(series.y[i])) {
        svg += mark(x(series.x[i]), y(series.y[i]), look, look.colour);
        break;
      }
    return svg;
  }
  for (size_t i = 0; i < count; ++i) {
    if (!x.shows(series.x[i]) || !y.shows(series.y[i])) continue;
    const double at = y(series.y[i]);
    if (series.style == Series::Style::Marks)
      svg += mark(x(series.x[i]), at, look, "none");
    else
      svg += line(x(series.x[i] - 0.3), at, x(series.x[i] + 0.3), at, look.colour);
  }
  return svg;
}

const Look& look_of(const std::string& name, const std::vector<std::string>& names) {
  const auto at = std::find(names.begin(), names.end(), name) - names.begin();
  return kLooks[static_cast<size_t>(at) % kLooks.size()];
}

std::string drawn(const Panel& panel, const Place& place, const std::vector<std::string>& names) {
  std::vector<double> all_x, all_y;
  for (const Series& series : panel.series) {
    all_x.insert(all_x.end(), series.x.begin(), series.x.end());
    for (const auto* values : {&series.y, &series.low, &series.high})
      all_y.insert(all_y.end(), values->begin(), values->end());
  }
  const Scale x(panel.x, all_x, /*tight=*/true, place.left, place.right());
  const Scale y(panel.y, all_y, /*tight=*/false, place.bottom(), place.top);
  std::string svg = frame(place, x, y, panel.title, panel.x, panel.y, /*grid=*/true);
  for (const Series& series : panel.series) svg += band(series, x, y, look_of(series.name, names));
  for (const Series& series : panel.series) svg += drawn(series, x, y, look_of(series.name, names));
  return svg;
}

/// The width of the name in the legend, with its line and a gap.
double width_of(const std::string& name) { return 70 + 8.0 * static_cast<double>(name.size()); }

double legend_end(const std::vector<std::string>& names) {
  double x = kLeft - 44;
  for (const std::string& name : names) x += width_of(name);
  return x;
}

std::string legend(const std::vector<std::string>& names) {
  std::string svg;
  double x = kLeft - 44;
  for (const std::string& name : names) {
    const Look& look = look_of(name, names);
    svg += formatted("<path d=\"M%.1f,68h36\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n", x,
                     look.colour, look.dashes);
    svg += mark(x + 18, 68, look, look.colour) + label(x + 44, 72, "", name);
    x += width_of(name);
  }
  return svg;
}

}  // namespace

std::vector<std::string> Figure::names() const {
  std::vector<std::string> all;
  for (const Tile& tile : tiles_)
    for (const Series& series : tile.panel.series)
      if (!series.name.empty() && std::find(all.begin(), all.end(), series.name) == all.end())
        all.push_back(series.name);
  return all;
}

std::string Figure::svg() const {
  const size_t rows = (tiles_.size() + kColumns - 1) / kColumns, columns = std::min(tiles_.size(), kColumns);
  const std::vector<std::string> all = names();
  const double tiles = kLeft + static_cast<double>(columns) * kTileWidth +
                       static_cast<double>(columns > 0 ? columns - 1 : 0) * kGapX + 24;
  const double width = std::max({tiles, 560.0, legend_end(all)});
  const double height =
      kHead + static_cast<double>(rows) * kTileHeight + static_cast<double>(rows > 0 ? rows - 1 : 0) * kGapY + kFoot;
  std::string svg = formatted(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222222\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
      width, height, width);
  svg += label(kLeft - 44, 26, "font-size=\"17\" font-weight=\"bold\"", title_);
  svg += label(kLeft - 44, 46, "", caption_) + legend(all);
  for (size_t i = 0; i < tiles_.size(); ++i)
    svg += tiles_[i].is_map ? drawn(tiles_[i].map, place_of(i)) : drawn(tiles_[i].panel, place_of(i), all);
  return svg + "</svg>\n";
}

}  // namespace presentation
