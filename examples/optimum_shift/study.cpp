// SPDX-License-Identifier: MIT
#include "optimum_shift/study.hpp"

#include <steppe/sharpness/displaced.hpp>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "optimum_shift/pictures.hpp"
#include "optimum_shift/report.hpp"
#include "presentation/files.hpp"
#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/page.hpp"
#include "presentation/progress.hpp"
#include "sharpness/measurement.hpp"

namespace shifting {
namespace {

namespace sharpness = steppe::sharpness;
using presentation::formatted;

/// The same directions for all trials; their lengths are those of each network's own filters.
void add_landscape(cifar::Run& run, const Settings& settings, bool with_plane, Trial& trial) {
  const auto surface = flatness::surface_of(run, std::min(settings.images, run.settings().train_size), 128);
  const auto options = sharpness::SliceOptions().radius(settings.radius);
  const at::Tensor first = sharpness::filter_normalised_direction(surface, settings.seed + 1);
  trial.slice = sharpness::slice(surface, first, sharpness::SliceOptions(options).points(2 * settings.points - 1));
  if (with_plane)
    trial.plane = sharpness::slice(surface, first, sharpness::filter_normalised_direction(surface, settings.seed + 2),
                                   sharpness::SliceOptions(options).points(settings.points));
}

/// Planes cost the most: only as trained, and after small batches that were not judged.
bool gets_plane(const Way& way) {
  return way.when == When::Never || (!way.judged && !way.all_images && !way.convolution);
}

bool changed(const Trial& trial) {
  return std::any_of(trial.events.begin(), trial.events.end(),
                     [](const Event& event) { return event.report.accepted && event.report.layers.front().moved; });
}

/// The trials of one run.
class Trials {
 public:
  Trials(const cifar::RunSettings& run, const cifar::Dataset& data, const Settings& settings, bool with_planes,
         const TellShare& tell)
      : settings_(run), data_(data), shifts_(settings), with_planes_(with_planes), tell_(tell) {}

  std::vector<Trial> all() {
    cifar::Run trained(data_, settings_);
    trained.train(
        [this] {
          say("training");
          return true;
        },
        [](const cifar::EpochRecord&) {});
    for (const Way& way : ways(shifts_)) {
      trials_.push_back({settings_.optimizer, settings_.seed, way, {}, {}, {}, {}});
      if (way.when == When::During)
        during(trials_.back());
      else
        after(trained, trials_.back());
    }
    return std::move(trials_);
  }

 private:
  void after(cifar::Run& trained, Trial& trial) {
    const sharpness::Displaced as_trained(trained.model()->parameters());  // restored at the end of this scope
    if (trial.way.when == When::After)
      trial.events.push_back(shift_after(trained, trial.way, shifts_, shifts_.seed + settings_.seed));
    look_at(trained, trial);
  }

  void during(Trial& trial) {
    cifar::Run run(data_, settings_);
    trial.events =
        train_shifting(run, trial.way, shifts_, shifts_.seed + settings_.seed, [&] { say(trial.way.label()); });
    look_at(run, trial);
  }

  /// Where no shift was kept, everything is as trained and need not be measured again.
  void look_at(cifar::Run& run, Trial& trial) {
    if (trial.way.when != When::Never && !changed(trial)) {
      trial.state = trials_.front().state;
      trial.slice = trials_.front().slice;
      return;
    }
    trial.state = measure(run, data_, shifts_, [&](const std::string& what) { say(trial.way.label() + ": " + what); });
    add_landscape(run, shifts_, with_planes_ && gets_plane(trial.way), trial);
  }

  void say(const std::string& what) const {
    const auto all = static_cast<double>(ways(shifts_).size());
    tell_(what, trials_.empty() ? 0.0 : static_cast<double>(trials_.size() - 1) / all);
  }

  const cifar::RunSettings& settings_;
  const cifar::Dataset& data_;
  const Settings& shifts_;
  bool with_planes_;
  const TellShare& tell_;
  std::vector<Trial> trials_;
};

void write_page(const Study& study, const std::vector<Trial>& trials) {
  presentation::Page page(study.out, "Optimum shifting on CIFAR images");
  page.paragraph(conditions(study.runs.front(), study.settings));
  page.table("At the end; mean ± standard deviation over the seeds", table(trials));
  page.verbatim(conclusions(trials));
  page.figure("slices", "The landscape along one direction, before and after", slice_picture(trials));
  page.figure("planes", "The landscape over two directions, before and after", plane_picture(trials));
  page.figure("shifts", "What each shift during training did to the loss, kept or not", event_picture(trials));
  page.table("Each run; ± is the standard error of the trace's draws", trial_table(trials));
  page.data("numbers", numbers_csv(trials));
}

}  // namespace

std::vector<Trial> trials_of(const cifar::RunSettings& run, const cifar::Dataset& data, const Settings& settings,
                             bool with_planes, const TellShare& tell) {
  return Trials(run, data, settings, with_planes, tell).all();
}

Outcome carry_out(const Study& study, const cifar::Dataset& data) {
  presentation::make_writable(study.out, "--out");
  presentation::Progress progress(stdout, static_cast<double>(study.runs.size()));
  Outcome outcome;
  try {
    for (const cifar::RunSettings& run : study.runs) {
      const std::string name = run.optimizer + ", seed " + std::to_string(run.seed);
      double told = 0.0;
      const auto tell = [&](const std::string& what, double share) {
        progress.advance(share - told);
        told = share;
        if (progress.due()) progress.show({name + ": " + what, progress.share(), "", progress.seconds_left()});
        if (presentation::interrupted()) throw presentation::Interrupted();
      };
      const std::vector<Trial> trials = trials_of(run, data, study.settings, run.seed == study.runs.front().seed, tell);
      outcome.trials.insert(outcome.trials.end(), trials.begin(), trials.end());
      progress.advance(1.0 - told);
      progress.say(name + ": " + one_line(trials));
      write_page(study, outcome.trials);
      ++outcome.runs;
    }
    outcome.finished = true;
  } catch (const presentation::Interrupted&) {
    progress.clear();
  }
  return outcome;
}

}  // namespace shifting
