// SPDX-License-Identifier: MIT
#include "presentation/figure.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "presentation/formatted.hpp"
#include "presentation/table.hpp"

namespace presentation {
namespace {

constexpr double kTileWidth = 320, kTileHeight = 300, kHead = 110, kGapX = 82, kGapY = 104, kLeft = 74, kFoot = 60;
constexpr size_t kColumns = 3;

/// Told apart without colours too: by dashes and marks.
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

std::string label(double x, double y, const char* attributes, const std::string& words) {
  return formatted("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes) + escaped(words) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* colour) {
  return formatted("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

std::string mark(double x, double y, const Look& look, const char* fill) {
  return formatted("<path d=\"%s\" transform=\"translate(%.1f,%.1f)\" fill=\"%s\" stroke=\"%s\"/>\n", look.mark, x, y,
                   fill, look.colour);
}

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into at most six parts.
double tick_step(double range) {
  const double power = std::pow(10.0, std::floor(std::log10(range / 6.0)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (range / (power * factor) <= 6.0) return power * factor;
  return 10.0 * power;
}

std::string number_text(double value, double step) {
  return formatted("%g", std::round(value / step * 1e3) * step / 1e3 + 0.0);
}

/// From data to picture, with its ticks.
class Scale {
 public:
  Scale(const Axis& axis, const std::vector<double>& values, bool tight, double at, double end)
      : logarithmic_(axis.logarithmic), whole_(axis.whole), at_(at), end_(end) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const double value : values)
      if (shows(value)) {
        low = std::min(low, inner(value));
        high = std::max(high, inner(value));
      }
    if (!axis.categories.empty()) {
      set(-0.5, static_cast<double>(axis.categories.size()) - 0.5);
      for (size_t i = 0; i < axis.categories.size(); ++i)
        ticks_.emplace_back(static_cast<double>(i), axis.categories[i]);
      return;
    }
    if (low > high) low = 0.0, high = 1.0;
    if (logarithmic_)
      decades(low, high, tight);
    else
      steps(low, high, tight);
  }

  bool shows(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0.0); }
  double operator()(double value) const { return place(inner(value)); }
  double place(double inside) const { return at_ + (inside - from_) / (to_ - from_) * (end_ - at_); }
  /// Where they stand, and what they say.
  const std::vector<std::pair<double, std::string>>& ticks() const { return ticks_; }

 private:
  double inner(double value) const { return logarithmic_ ? std::log10(value) : value; }
  void set(double from, double to) {
    from_ = from;
    to_ = to;
  }

  void steps(double low, double high, bool tight) {
    const double least = std::max(std::abs(low), std::abs(high)) * 1e-9;
    if (high - low <= least) {
      const double room = high != 0.0 ? std::abs(high) * 0.1 : 1.0;
      low -= room;
      high += room;
    }
    const double step = whole_ ? std::max(1.0, tick_step(high - low)) : tick_step(high - low);
    if (tight)
      set(low, high);
    else
      set(std::floor(low / step - 0.1) * step, (std::floor(high / step + 0.1) + 1.0) * step);
    for (double tick = std::ceil(from_ / step - 1e-6); tick * step <= to_ + step * 1e-6; tick += 1.0)
      ticks_.emplace_back(tick * step, number_text(tick * step, step));
  }

  void decades(double low, double high, bool tight) {
    if (tight && high - low > 0.3)
      set(low, high);
    else
      set(std::floor(low + 1e-9), std::max(std::ceil(high - 1e-9), std::floor(low + 1e-9) + 1.0));
    const double step = std::max(1.0, std::ceil((to_ - from_) / 6.0));
    const bool few = to_ - from_ < 2.5;
    for (double power = std::floor(from_); power <= to_ + 1e-9; power += step)
      for (const double factor : few ? std::vector<double>{1.0, 2.0, 5.0} : std::vector<double>{1.0}) {
        const double inside = power + std::log10(factor);
        if (inside >= from_ - 1e-9 && inside <= to_ + 1e-9)
          ticks_.emplace_back(inside, std::abs(power) < 4.0 ? formatted("%g", factor * std::pow(10.0, power))
                                                            : formatted("%ge%.0f", factor, power));
      }
  }

  bool logarithmic_, whole_;
  double at_, end_, from_ = 0.0, to_ = 1.0;
  std::vector<std::pair<double, std::string>> ticks_;
};

/// Where a tile lies in the picture.
struct Place {
  double left, top;
  double right() const { return left + kTileWidth; }
  double bottom() const { return top + kTileHeight; }
};

Place place_of(size_t tile) {
  return {kLeft + static_cast<double>(tile % kColumns) * (kTileWidth + kGapX),
          kHead + static_cast<double>(tile / kColumns) * (kTileHeight + kGapY)};
}

std::string frame(const Place& place, const Scale& x, const Scale& y, const std::string& title, const Axis& x_axis,
                  const Axis& y_axis, bool grid) {
  std::string svg;
  for (const auto& [value, words] : y.ticks()) {
    if (grid) svg += line(place.left, y.place(value), place.right(), y.place(value), "#dddddd");
    svg += label(place.left - 8, y.place(value) + 4, "text-anchor=\"end\"", words);
  }
  for (const auto& [value, words] : x.ticks()) {
    svg += line(x.place(value), place.bottom(), x.place(value), place.bottom() + 5, "#222222");
    svg += label(x.place(value), place.bottom() + 20, "text-anchor=\"middle\"", words);
  }
  svg += line(place.left, place.top, place.left, place.bottom(), "#222222");
  svg += line(place.left, place.bottom(), place.right(), place.bottom(), "#222222");
  svg += label(place.left - 44, place.top - 16, "font-weight=\"bold\"", title);
  svg += label((place.left + place.right()) / 2, place.bottom() + 42, "text-anchor=\"middle\"", x_axis.name);
  if (!y_axis.name.empty())
    svg += formatted("<text transform=\"translate(%.1f,%.1f) rotate(-90)\" text-anchor=\"middle\">", place.left - 56,
                     (place.top + place.bottom()) / 2) +
           escaped(y_axis.name) + "</text>\n";
  return svg;
}

/// The stretches of a series that can be drawn, as SVG points.
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

/// Light to dark, so that it reads in grey too.
std::string colour_of(double share) {
  constexpr double kStops[][3] = {{253, 245, 208}, {244, 165, 80}, {190, 60, 80}, {70, 20, 90}, {10, 10, 40}};
  const double at = std::clamp(share, 0.0, 1.0) * 4.0;
  const auto stop = std::min<size_t>(static_cast<size_t>(at), 3);
  const double part = at - static_cast<double>(stop);
  int rgb[3];
  for (size_t i = 0; i < 3; ++i)
    rgb[i] = static_cast<int>(std::lround(kStops[stop][i] + part * (kStops[stop + 1][i] - kStops[stop][i])));
  return formatted("#%02x%02x%02x", static_cast<unsigned>(rgb[0]), static_cast<unsigned>(rgb[1]),
                   static_cast<unsigned>(rgb[2]));
}

/// Values as colours see them.
struct Tone {
  bool logarithmic;
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  explicit Tone(const Map& map) : logarithmic(map.logarithmic) {
    for (const auto& row : map.values)
      for (const double value : row)
        if (shows(value)) {
          low = std::min(low, inner(value));
          high = std::max(high, inner(value));
        }
  }
  bool shows(double value) const { return std::isfinite(value) && (!logarithmic || value > 0.0); }
  double inner(double value) const { return logarithmic ? std::log10(value) : value; }
  double share(double value) const { return high > low ? (inner(value) - low) / (high - low) : 0.0; }
};

std::vector<double> borders(const std::vector<double>& centres) {
  std::vector<double> edges;
  for (size_t i = 0; i + 1 < centres.size(); ++i) edges.push_back((centres[i] + centres[i + 1]) / 2);
  if (edges.empty()) return {centres.front() - 0.5, centres.front() + 0.5};
  edges.insert(edges.begin(), 2 * centres.front() - edges.front());
  edges.push_back(2 * centres.back() - edges.back());
  return edges;
}

/// The line on which the values between four neighbours equal `level`, as SVG path commands.
std::string crossing(const Map& map, const Tone& tone, size_t i, size_t j, double level, const Scale& x,
                     const Scale& y) {
  struct Corner {
    double x, y, value;
  };
  std::array<Corner, 4> corners;
  constexpr size_t kAround[4][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 1}};
  for (size_t c = 0; c < 4; ++c) {
    const size_t a = i + kAround[c][0], b = j + kAround[c][1];
    if (!tone.shows(map.values[a][b])) return "";
    corners[c] = {x(map.xs[a]), y(map.ys[b]), tone.share(map.values[a][b])};
  }
  std::string path;
  bool down = false;
  for (size_t c = 0; c < 4; ++c) {
    const Corner &from = corners[c], &to = corners[(c + 1) % 4];
    if ((from.value < level) == (to.value < level)) continue;
    const double part = (level - from.value) / (to.value - from.value);
    path +=
        formatted("%c%.1f,%.1f", down ? 'L' : 'M', from.x + part * (to.x - from.x), from.y + part * (to.y - from.y));
    down = !down;
  }
  return path;
}

std::string key_of(const Map& map, const Tone& tone, const Place& place) {
  constexpr int kParts = 40;
  const double left = place.left, top = place.top - 10, width = kTileWidth * 0.5 / kParts;
  std::string svg;
  for (int i = 0; i < kParts; ++i)
    svg += formatted("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"8\" fill=\"%s\"/>\n", left + i * width, top,
                     width + 0.3, colour_of((i + 0.5) / kParts).c_str());
  if (tone.high < tone.low) return svg;
  const auto outer = [&](double inside) { return map.logarithmic ? std::pow(10.0, inside) : inside; };
  return svg + label(left + kTileWidth * 0.5 + 8, top + 8, "font-size=\"11\"",
                     map.value_name + formatted(" %.3g to %.3g", outer(tone.low), outer(tone.high)));
}

std::string drawn(const Map& map, const Place& place) {
  if (map.xs.empty() || map.ys.empty()) return "";
  const std::vector<double> x_edges = borders(map.xs), y_edges = borders(map.ys);
  const Scale x(map.x, x_edges, /*tight=*/true, place.left, place.right());
  const Scale y(map.y, y_edges, /*tight=*/true, place.bottom(), place.top);
  const Tone tone(map);
  std::string svg;
  for (size_t i = 0; i < map.xs.size(); ++i)
    for (size_t j = 0; j < map.ys.size(); ++j) {
      const double value = map.values[i][j];
      svg +=
          formatted("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x(x_edges[i]),
                    y(y_edges[j + 1]), x(x_edges[i + 1]) - x(x_edges[i]) + 0.3, y(y_edges[j]) - y(y_edges[j + 1]) + 0.3,
                    tone.shows(value) ? colour_of(tone.share(value)).c_str() : "#ffffff");
    }
  std::string path;
  for (int level = 1; level < 10; ++level)
    for (size_t i = 0; i + 1 < map.xs.size(); ++i)
      for (size_t j = 0; j + 1 < map.ys.size(); ++j) path += crossing(map, tone, i, j, level / 10.0, x, y);
  if (!path.empty()) svg += "<path fill=\"none\" stroke=\"#777777\" stroke-width=\"0.7\" d=\"" + path + "\"/>\n";
  return svg + key_of(map, tone, place) + frame(place, x, y, "", map.x, map.y, /*grid=*/false) +
         label(place.left - 44, place.top - 22, "font-weight=\"bold\"", map.title);
}

/// What the name takes in the legend, with its line and a gap.
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
