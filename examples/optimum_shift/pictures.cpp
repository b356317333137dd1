// SPDX-License-Identifier: MIT
#include "optimum_shift/pictures.hpp"

#include <string>
#include <utility>

#include "optimum_shift/report.hpp"

namespace shifting {
namespace {

using presentation::cell;
using presentation::Figure;
using presentation::Map;
using presentation::Panel;
using presentation::Series;
using presentation::Table;

/// Whether a trial's landscape is the one as trained or may differ from it.
bool is_shown(const Trial& trial) { return trial.way.when == When::Never || !trial.way.judged; }

}  // namespace

Picture slice_picture(const std::vector<Trial>& trials) {
  Figure figure("The loss along one random direction, normalised per filter",
                "The first seed. As trained, and after shifts that were kept whatever they did.");
  Table table{{{"optimizer", "seed", "way", "position", "loss"}}};
  for (const std::string& optimizer : optimizers_of(trials)) {
    Panel panel{optimizer, {"position (lengths of the filters)"}, {"loss", true}, {}};
    for (const Trial& trial : trials) {
      if (trial.optimizer != optimizer || !is_shown(trial)) continue;
      if (trial.seed == trials.front().seed)
        panel.series.push_back(
            {trial.way.name, trial.slice.positions, trial.slice.losses, {}, {}, Series::Style::Line});
      for (size_t i = 0; i < trial.slice.positions.size(); ++i)
        table.rows.push_back({optimizer, std::to_string(trial.seed), trial.way.label(), cell(trial.slice.positions[i]),
                              cell(trial.slice.losses[i])});
    }
    figure.add(std::move(panel));
  }
  return {std::move(figure), std::move(table)};
}

Picture plane_picture(const std::vector<Trial>& trials) {
  Figure figure("The loss over two random directions, normalised per filter",
                "The first seed; the weights are at 0, 0; shifts were kept whatever they did.");
  Table table{{{"optimizer", "way", "first", "second", "loss"}}};
  for (const Trial& trial : trials) {
    if (!trial.plane) continue;
    const auto& plane = *trial.plane;
    figure.add(Map{trial.optimizer + ": " + trial.way.name,
                   {"first (lengths of the filters)"},
                   {"second (lengths of the filters)"},
                   "loss",
                   true,
                   plane.positions,
                   plane.positions,
                   plane.losses});
    for (size_t i = 0; i < plane.positions.size(); ++i)
      for (size_t j = 0; j < plane.positions.size(); ++j)
        table.rows.push_back({trial.optimizer, trial.way.label(), cell(plane.positions[i]), cell(plane.positions[j]),
                              cell(plane.losses[i][j])});
  }
  return {std::move(figure), std::move(table)};
}

Picture event_picture(const std::vector<Trial>& trials) {
  Figure figure("What shifts during training did to the loss",
                "Loss on the images that shifts are judged by, after less before; all seeds.");
  Table table{{{"optimizer", "seed", "way", "step", "kept", "loss_before", "loss_after", "norm_before", "norm_after",
                "rank", "rows", "features", "output_change"}}};
  for (const std::string& optimizer : optimizers_of(trials)) {
    Panel panel{optimizer, {"step of the training"}, {"rise of the loss"}, {}};
    for (const Trial& trial : trials) {
      if (trial.optimizer != optimizer) continue;
      Series rises{trial.way.label(), {}, {}, {}, {}, Series::Style::Marks};
      for (const Event& event : trial.events) {
        const auto& layer = event.report.layers.front();
        if (trial.way.when == When::During) {
          rises.x.push_back(static_cast<double>(event.step));
          rises.y.push_back(event.report.loss_after - event.report.loss_before);
        }
        table.rows.push_back({optimizer, std::to_string(trial.seed), trial.way.label(), std::to_string(event.step),
                              event.report.accepted ? "1" : "0", cell(event.report.loss_before),
                              cell(event.report.loss_after), cell(layer.norm_before), cell(layer.norm_after),
                              std::to_string(layer.rank), std::to_string(layer.rows), std::to_string(layer.features),
                              cell(layer.output_change)});
      }
      if (!rises.x.empty()) panel.series.push_back(std::move(rises));
    }
    figure.add(std::move(panel));
  }
  return {std::move(figure), std::move(table)};
}

}  // namespace shifting
