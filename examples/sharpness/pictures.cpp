// SPDX-License-Identifier: MIT
#include "sharpness/pictures.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "presentation/spread.hpp"
#include "sharpness/report.hpp"

namespace flatness {
namespace {

using presentation::cell;
using presentation::Figure;
using presentation::Map;
using presentation::Panel;
using presentation::Series;
using presentation::Table;

Series series(const std::string& name, std::vector<double> x, std::vector<double> y) {
  return {name, std::move(x), std::move(y), {}, {}, Series::Style::Line};
}

/// Without values below a tenth of a single eigenvalue's peak.
std::vector<double> visible(const Measured& run) {
  const double one = 1.0 / (static_cast<double>(run.parameters) * run.density.sigma * std::sqrt(2.0 * std::acos(-1.0)));
  std::vector<double> density = run.density.density;
  for (double& value : density)
    if (value < 0.1 * one) value = presentation::kUnknown;
  return density;
}

void add_rows(Table& table, const Group& group, const Measured& run, const std::string& what,
              const std::vector<double>& x, const std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i)
    table.rows.push_back({group.name, std::to_string(run.run.seed), what, cell(x[i]), cell(y[i])});
}

/// 0, 1, 2 ...: places on an axis of categories.
std::vector<double> places(size_t count) {
  std::vector<double> all;
  for (size_t i = 0; i < count; ++i) all.push_back(static_cast<double>(i));
  return all;
}

std::vector<std::string> ranks(const std::vector<Measured>& results) {
  size_t most = 0;
  for (const Measured& run : results) most = std::max(most, run.top.values.size());
  std::vector<std::string> names;
  for (size_t i = 1; i <= most; ++i) names.push_back(std::to_string(i));
  return names;
}

bool spans_decades(const steppe::sharpness::Plane& plane) {
  double low = std::numeric_limits<double>::infinity(), high = 0.0;
  for (const auto& row : plane.losses)
    for (const double loss : row)
      if (std::isfinite(loss)) low = std::min(low, loss), high = std::max(high, loss);
  return low > 0.0 && high > 10.0 * low;
}

}  // namespace

Picture spectrum_picture(const std::vector<Measured>& results) {
  Panel density{"Spectral density of the Hessian", {"eigenvalue"}, {"density (per unit of eigenvalue)", true}, {}};
  Panel top{"Largest eigenvalues", {"rank", false, ranks(results)}, {"eigenvalue", true}, {}};
  Table table{{{"group", "seed", "what", "x", "y"}}};
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      density.series.push_back(series(group.name, run->density.grid, visible(*run)));
      const std::vector<double> at = places(run->top.values.size());
      top.series.push_back({group.name, at, run->top.values, {}, {}, Series::Style::Marks});
      add_rows(table, group, *run, "density", run->density.grid, run->density.density);
      add_rows(table, group, *run, "eigenvalue", at, run->top.values);
    }
  Figure figure("Eigenvalues of the loss's Hessian",
                "Each run is a curve; each eigenvalue is smoothed over a hundredth of its run's range.");
  figure.add(std::move(density));
  figure.add(std::move(top));
  return {std::move(figure), std::move(table)};
}

Picture rise_picture(const std::vector<Measured>& results, const Settings& settings) {
  Panel ball{"Rise uphill", {"rho (distance)", true}, {"L(w + rho g/|g|) - L(w)", true}, {}};
  Panel slice{"Along one random direction", {"position (lengths of the filters)"}, {"loss", true}, {}};
  Table table{{{"group", "seed", "what", "x", "y"}}};
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      std::vector<double> rises;
      for (const auto& sam : run->sam) rises.push_back(sam.sharpness);
      ball.series.push_back(series(group.name, settings.rhos, rises));
      slice.series.push_back(series(group.name, run->slice.positions, run->slice.losses));
      add_rows(table, group, *run, "SAM sharpness", settings.rhos, rises);
      add_rows(table, group, *run, "slice", run->slice.positions, run->slice.losses);
    }
  Figure figure("How the loss rises",
                "Each run is a curve; the direction is the same random one, normalised per filter.");
  figure.add(std::move(ball));
  figure.add(std::move(slice));
  return {std::move(figure), std::move(table)};
}

Picture plane_picture(const std::vector<Measured>& results) {
  Figure figure("The loss over two random directions, normalised per filter",
                "The first seed of each optimizer; the weights are at 0, 0; level lines are evenly spaced in colour.");
  Table table{{{"group", "seed", "first", "second", "loss"}}};
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      if (!run->plane) continue;
      const auto& plane = *run->plane;
      figure.add(Map{label_of(group, *run),
                     {"first (lengths of the filters)"},
                     {"second (lengths of the filters)"},
                     "loss",
                     spans_decades(plane),
                     plane.positions,
                     plane.positions,
                     plane.losses});
      for (size_t i = 0; i < plane.positions.size(); ++i)
        for (size_t j = 0; j < plane.positions.size(); ++j)
          table.rows.push_back({group.name, std::to_string(run->run.seed), cell(plane.positions[i]),
                                cell(plane.positions[j]), cell(plane.losses[i][j])});
    }
  return {std::move(figure), std::move(table)};
}

}  // namespace flatness
