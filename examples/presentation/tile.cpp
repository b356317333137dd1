// SPDX-License-Identifier: MIT
#include "presentation/tile.hpp"

#include "presentation/formatted.hpp"
#include "presentation/table.hpp"

namespace presentation {

std::string label(double x, double y, const char* attributes, const std::string& words) {
  return formatted("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes) + escaped(words) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* colour) {
  return formatted("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, colour);
}

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

}  // namespace presentation
