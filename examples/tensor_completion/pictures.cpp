// SPDX-License-Identifier: MIT
#include "pictures.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"

namespace completion {
namespace {

using presentation::Axis;
using presentation::Figure;
using presentation::formatted;
using presentation::Panel;
using presentation::Series;
using presentation::Spread;
using presentation::spread_of;

using Value = double (*)(const Moment&);

/// Mean over the splits and its range, at every iteration (from 1 on) at which all of them were evaluated.
Series curve(const Results& results, const std::string& method, Value value) {
  std::map<int64_t, std::vector<double>> at;
  const auto runs = results.of(method);
  for (const MethodRun* run : runs)
    for (const Moment& moment : run->completion.moments)
      if (moment.iteration > 0 && std::isfinite(value(moment))) at[moment.iteration].push_back(value(moment));
  Series series;
  series.name = method;
  for (const auto& [iteration, values] : at) {
    if (values.size() < runs.size()) continue;
    const Spread spread = spread_of(values);
    series.x.push_back(static_cast<double>(iteration));
    series.y.push_back(spread.mean);
    series.low.push_back(spread.lowest);
    series.high.push_back(spread.highest);
  }
  return series;
}

Panel over_iterations(const Results& results, const std::string& title, bool logarithmic, Value value) {
  Panel panel{title, {"iteration (sweep of hooi)", true}, {"", logarithmic}, {}};
  for (const std::string& method : results.methods) {
    Series series = curve(results, method, value);
    if (!series.x.empty()) panel.series.push_back(std::move(series));
  }
  return panel;
}

/// Q over that of adam on the same split at the same iteration.
Panel relative_deviation(const Results& results) {
  Results relative = results;
  for (MethodRun& run : relative.runs)
    for (size_t i = 0; i < run.completion.moments.size(); ++i) {
      Moment& moment = run.completion.moments[i];
      double base = presentation::kUnknown;
      for (const MethodRun* adam : results.of("adam"))
        if (adam->split == run.split && i < adam->completion.moments.size() &&
            adam->completion.moments[i].iteration == moment.iteration)
          base = adam->completion.moments[i].deviation;
      moment.deviation /= base;
    }
  return over_iterations(relative, "Q relative to adam's", false,
                         [](const Moment& moment) { return moment.deviation; });
}

std::string over_splits(const Results& results) {
  return results.splits.size() == 1 ? "one split"
                                    : formatted("%d splits; lines are means, bands the range over the splits",
                                                static_cast<int>(results.splits.size()));
}

/// Of the first split: one mark for each sample.
Series scattered(const MethodRun& run) {
  Series series{run.method, run.observed, run.errors, {}, {}, Series::Style::Marks};
  return series;
}

Series in_order(const MethodRun& run) {
  std::vector<double> errors = run.errors;
  errors.erase(std::remove_if(errors.begin(), errors.end(), [](double x) { return !std::isfinite(x); }), errors.end());
  std::sort(errors.begin(), errors.end());
  Series series{run.method, {}, errors, {}, {}};
  for (size_t i = 0; i < errors.size(); ++i)
    series.x.push_back(100.0 * static_cast<double>(i + 1) / static_cast<double>(errors.size()));
  return series;
}

/// The place of the published setting on a knob's axis; 0 if it has none.
double published_value(const Attempt& attempt, const std::string& knob) {
  if (attempt.knob != "as published") return 0.0;
  const std::vector<int64_t>& ranks = attempt.settings.ranks;
  if (knob == "rank") return static_cast<double>(*std::max_element(ranks.begin(), ranks.end()));
  return knob == "initial scale" ? attempt.settings.initial_scale : 0.0;
}

/// Mean and range over the splits of what one knob leaves unexplained.
Series knob_curve(const Results& results, const std::string& knob, const std::string& name, Moment Tried::*moment) {
  std::map<double, std::vector<double>> at;
  for (const Tried& tried : results.tried)
    if (tried.attempt.knob == knob)
      at[tried.attempt.value].push_back(1.0 - (tried.*moment).held_out);
    else if (const double published = published_value(tried.attempt, knob); published > 0.0)
      at[published].push_back(1.0 - (tried.*moment).held_out);
  Series series;
  series.name = name;
  for (const auto& [value, left] : at) {
    const Spread spread = spread_of(left);
    series.x.push_back(value);
    series.y.push_back(spread.mean);
    series.low.push_back(spread.lowest);
    series.high.push_back(spread.highest);
  }
  return series;
}

}  // namespace

Figure fit_figure(const Results& results) {
  Figure figure("Completion of the tensor", over_splits(results));
  figure.add(over_iterations(results, "Loss (mean squared error, observed)", true,
                             [](const Moment& moment) { return moment.loss; }));
  figure.add(over_iterations(results, "1 - R2 on the observed entries", true,
                             [](const Moment& moment) { return 1.0 - moment.training; }));
  figure.add(over_iterations(results, "1 - R2 on the held-out entries", true,
                             [](const Moment& moment) { return 1.0 - moment.held_out; }));
  return figure;
}

Figure deviation_figure(const Results& results) {
  Figure figure("Norm deviation of core and factors", over_splits(results));
  figure.add(over_iterations(results, "Norm deviation Q", true, [](const Moment& moment) { return moment.deviation; }));
  figure.add(over_iterations(results, "Correlation of |G|2 and |g|2 over the cores", false,
                             [](const Moment& moment) { return moment.correlation; }));
  figure.add(relative_deviation(results));
  return figure;
}

Figure samples_figure(const Results& results) {
  Figure figure("Held-out error of the samples",
                formatted("split %d; one mark for each index of the first mode", static_cast<int>(results.splits[0])));
  Panel against{"Against the observed entries of the sample",
                {"observed entries of the sample"},
                {"mean squared error", true},
                {}};
  Panel ordered{"In rising order", {"share of the samples (%)"}, {"mean squared error", true}, {}};
  for (const MethodRun& run : results.runs) {
    if (run.split != results.splits[0]) continue;
    // Two clouds can be distinguished, four cannot.
    if (against.series.size() < 2) against.series.push_back(scattered(run));
    ordered.series.push_back(in_order(run));
  }
  figure.add(std::move(against));
  figure.add(std::move(ordered));
  return figure;
}

Figure attempts_figure(const Results& results) {
  Figure figure("What helps on held-out entries",
                "1 - R2 on held-out entries: 1 is as good as their mean, less is better; " + over_splits(results));
  for (const std::string& knob : knobs_of(results)) {
    const bool rank = knob.compare(0, 4, "rank") == 0;
    figure.add(Panel{"",
                     {knob, !rank},
                     {"1 - R2 held out", true},
                     {knob_curve(results, knob, "at the end", &Tried::last),
                      knob_curve(results, knob, "at the best validation R2", &Tried::chosen)}});
  }
  return figure;
}

}  // namespace completion
