// SPDX-License-Identifier: MIT
#include "presentation/heat_map.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "presentation/formatted.hpp"

namespace presentation {
namespace {

/// Light to dark, so that it is readable in grey too.
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

/// Values on the scale of the colours.
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

}  // namespace

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

}  // namespace presentation
