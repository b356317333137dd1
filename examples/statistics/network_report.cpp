// SPDX-License-Identifier: MIT
#include "network_report.hpp"

#include <algorithm>
#include <cmath>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"
#include "stopping.hpp"

namespace statistics {
namespace {

using presentation::cell;
using presentation::Figure;
using presentation::formatted;
using presentation::mean_and_deviation;
using presentation::Panel;
using presentation::Series;
using presentation::Spread;
using presentation::spread_of;
using Value = std::function<double(const NetworkCurves&)>;

double best_error(const NetworkCurves& curves) { return 100.0 * best_stop(curves.error).risk; }
double last_error(const NetworkCurves& curves) { return 100.0 * curves.error.back(); }
double best_risk(const NetworkCurves& curves) { return best_stop(curves.risk).risk; }
double top_eigenvalue(const NetworkCurves& curves) { return curves.top_eigenvalue; }

/// Test error in percent at a recorded step.
Value error_at(size_t index) {
  return [index](const NetworkCurves& curves) { return 100.0 * curves.error[index]; };
}

/// One sentence on `value` against GD, lower being better.
std::string against_gd(const NetworkStudy& study, size_t level, size_t method, const std::string& what,
                       const char* format, const Value& value) {
  const std::vector<double> differences = differences_to_gd(study, level, method, value);
  const Spread spread = spread_of(differences);
  std::string text = "  " + study.methods[method].name + ", " + what + ": " + formatted(format, spread.mean);
  if (spread.count < 2) return text + ". One seed: this cannot be distinguished from chance.\n";
  const double half = presentation::half_interval(spread);
  const auto lower = std::count_if(differences.begin(), differences.end(), [](double d) { return d < 0.0; });
  text +=
      formatted(", lower on %d of %d seeds (95 %% interval ", static_cast<int>(lower), static_cast<int>(spread.count)) +
      formatted(format, spread.mean - half) + " to " + formatted(format, spread.mean + half) + "): ";
  return text + presentation::verdict(spread, "higher here", "lower here") + ".\n";
}

/// The recorded steps at which the mean over the seeds of a method's `values` is lower than GD's.
std::string lower_steps(const NetworkStudy& study, size_t level, size_t method,
                        const std::vector<double> NetworkCurves::*values) {
  std::vector<double> own, gd;
  for (size_t i = 0; i < study.steps.size(); ++i) {
    const Value at = [&](const NetworkCurves& curves) { return (curves.*values)[i]; };
    own.push_back(spread_of(over_seeds(study, level, method, at)).mean);
    gd.push_back(spread_of(over_seeds(study, level, 0, at)).mean);
  }
  std::vector<Stretch> all = stretches(own, gd);
  for (Stretch& stretch : all)
    stretch = {static_cast<size_t>(study.steps[stretch.from]), static_cast<size_t>(study.steps[stretch.to]),
               stretch.ahead};
  return "lower at steps " + stretches_of(all, Ahead::First);
}

size_t index_of_tenth(const NetworkStudy& study) {
  const auto found = std::lower_bound(study.steps.begin(), study.steps.end(), study.settings.iterations / 10);
  return static_cast<size_t>(found - study.steps.begin());
}

Series curve(const NetworkStudy& study, size_t level, size_t method, const std::vector<double> NetworkCurves::*values,
             double factor) {
  Series series{study.methods[method].name, {}, {}, {}, {}};
  for (size_t i = 1; i < study.steps.size(); ++i) {
    const Spread spread =
        spread_of(over_seeds(study, level, method, [&](const NetworkCurves& c) { return factor * (c.*values)[i]; }));
    series.x.push_back(static_cast<double>(study.steps[i]));
    series.y.push_back(spread.mean);
    series.low.push_back(spread.lowest);
    series.high.push_back(spread.highest);
  }
  return series;
}

Figure figure_of(const NetworkStudy& study) {
  Figure figure("One hidden layer on noisy labels: GD and SAM over the steps",
                "lines: means over the seeds; bands: their range; against the clean labels of the test images");
  for (size_t level = 0; level < study.curves.size(); ++level) {
    if (study.curves[level].empty()) continue;
    const double noise = 100.0 * study.settings.noise[level];
    const auto panel = [&](const char* what, const std::vector<double> NetworkCurves::*values, double factor) {
      Panel made{formatted("%s, %g %% flipped", what, noise), {"step k", true}, {}, {}};
      for (size_t m = 0; m < study.methods.size(); ++m) made.series.push_back(curve(study, level, m, values, factor));
      figure.add(made);
    };
    panel("Bias²", &NetworkCurves::bias, 1.0);
    panel("Variance", &NetworkCurves::variance, 1.0);
    panel("Test error (%)", &NetworkCurves::error, 100.0);
  }
  return figure;
}

presentation::Table data_of(const NetworkStudy& study) {
  presentation::Table data;
  data.rows = {{"label_noise", "seed_index", "method", "k", "bias2", "variance", "squared_error", "test_error",
                "top_eigenvalue_at_end"}};
  for (size_t level = 0; level < study.curves.size(); ++level)
    for (size_t seed = 0; seed < study.curves[level].size(); ++seed)
      for (size_t m = 0; m < study.methods.size(); ++m) {
        const NetworkCurves& curves = study.curves[level][seed][m];
        for (size_t i = 0; i < study.steps.size(); ++i)
          data.rows.push_back({formatted("%g", study.settings.noise[level]), std::to_string(seed),
                               study.methods[m].name, std::to_string(study.steps[i]), cell(curves.bias[i]),
                               cell(curves.variance[i]), cell(curves.risk[i]), cell(curves.error[i]),
                               i + 1 == study.steps.size() ? cell(curves.top_eigenvalue) : ""});
      }
  return data;
}

/// Calls visit(level, method) for what has results.
void for_each_row(const NetworkStudy& study, const std::function<void(size_t, size_t)>& visit) {
  for (size_t level = 0; level < study.curves.size(); ++level)
    for (size_t m = 0; m < study.methods.size(); ++m)
      if (!study.curves[level].empty()) visit(level, m);
}

}  // namespace

std::string conditions(const NetworkStudy& study) {
  const NetworkStudySettings& s = study.settings;
  const std::string setting = formatted(
      "%s, classes %lld and %lld: %lld training and %lld test images of 16 x 16 pixels; %lld hidden units (ReLU), "
      "squared loss on labels -1 and 1, full batches, no momentum, learning rate %g for all, %lld steps; SAM's radius "
      "%g, un-normalised %g |g|; ",
      study.data_name.c_str(), static_cast<long long>(s.classes[0]), static_cast<long long>(s.classes[1]),
      static_cast<long long>(study.train_images), static_cast<long long>(study.test_images),
      static_cast<long long>(s.hidden), s.learning_rate, static_cast<long long>(s.iterations), s.rho, s.gradient_rho);
  return setting + formatted(
                       "%d seeds of initial weights with %lld draws of flipped labels each. Best stopping times are "
                       "chosen on the test images themselves, as the theory does.\n",
                       static_cast<int>(study.curves.empty() ? 0 : study.curves.front().size()),
                       static_cast<long long>(s.draws));
}

presentation::Table error_table(const NetworkStudy& study) {
  presentation::Table table;
  table.heads = 2;
  table.rows = {{"", "flipped", "best k", "error there", "to GD", "error at end", "to GD"},
                {"", "%", "", "%", "points", "%", "points"}};
  for_each_row(study, [&](size_t level, size_t m) {
    const Value best_k = [&](const NetworkCurves& c) { return static_cast<double>(study.steps[best_stop(c.error).k]); };
    const auto to_gd = [&](const Value& value) {
      return m == 0 ? std::string("-") : mean_and_deviation(differences_to_gd(study, level, m, value), "%+.2f");
    };
    table.rows.push_back({study.methods[m].name, formatted("%g", 100.0 * study.settings.noise[level]),
                          mean_and_deviation(over_seeds(study, level, m, best_k), "%.0f"),
                          mean_and_deviation(over_seeds(study, level, m, best_error), "%.1f"), to_gd(best_error),
                          mean_and_deviation(over_seeds(study, level, m, last_error), "%.1f"), to_gd(last_error)});
  });
  return table;
}

presentation::Table bias_table(const NetworkStudy& study) {
  presentation::Table table;
  table.heads = 2;
  table.rows = {{"", "flipped", "best k", "bias²", "variance", "squared error", "at end: bias²", "variance",
                 "squared error", "top eigenvalue"},
                {"", "%", "", "", "", "", "", "", "", "of the Hessian"}};
  for_each_row(study, [&](size_t level, size_t m) {
    const auto text = [&](const char* format, const Value& value) {
      return mean_and_deviation(over_seeds(study, level, m, value), format);
    };
    const auto at_best = [](const std::vector<double> NetworkCurves::*values) {
      return Value([values](const NetworkCurves& c) { return (c.*values)[best_stop(c.risk).k]; });
    };
    table.rows.push_back(
        {study.methods[m].name, formatted("%g", 100.0 * study.settings.noise[level]),
         text("%.0f", [&](const NetworkCurves& c) { return static_cast<double>(study.steps[best_stop(c.risk).k]); }),
         text("%.3f", at_best(&NetworkCurves::bias)), text("%.3f", at_best(&NetworkCurves::variance)),
         text("%.3f", best_risk), text("%.3f", [](const NetworkCurves& c) { return c.bias.back(); }),
         text("%.3f", [](const NetworkCurves& c) { return c.variance.back(); }),
         text("%.3f", [](const NetworkCurves& c) { return c.risk.back(); }), text("%.2f", top_eigenvalue)});
  });
  return table;
}

std::string conclusions(const NetworkStudy& study) {
  std::string text;
  const size_t early = index_of_tenth(study);
  for_each_row(study, [&](size_t level, size_t m) {
    if (m == 0) {
      text += formatted("%g %% of the labels flipped, against GD:\n", 100.0 * study.settings.noise[level]);
      return;
    }
    const std::string& name = study.methods[m].name;
    text += against_gd(study, level, m,
                       formatted("test error at step %lld (points)", static_cast<long long>(study.steps[early])),
                       "%+.2f", error_at(early));
    text += against_gd(study, level, m, "test error at the best stop (points)", "%+.2f", best_error);
    text += against_gd(study, level, m, "test error at the end (points)", "%+.2f", last_error);
    text += against_gd(study, level, m, "squared error at its best stop", "%+.4f", best_risk);
    text += against_gd(study, level, m, "top eigenvalue of the Hessian at the end", "%+.2f", top_eigenvalue);
    text += "  " + name + ", mean over the seeds: bias² " + lower_steps(study, level, m, &NetworkCurves::bias) + "; ";
    if (study.settings.noise[level] > 0.0)
      text += "variance " + lower_steps(study, level, m, &NetworkCurves::variance) + "; ";
    text += "squared error " + lower_steps(study, level, m, &NetworkCurves::risk) + ".\n";
  });
  return text;
}

void add_to(presentation::Page& page, const NetworkStudy& study) {
  if (study.curves.empty() || study.curves.front().empty()) return;
  page.heading("A network with one hidden layer");
  page.paragraph(conditions(study));
  page.table("Test error; mean ± deviation over the seeds", error_table(study));
  page.table("Bias², variance and squared error of the predictions over the draws; mean ± deviation over the seeds",
             bias_table(study));
  page.verbatim(conclusions(study));
  page.figure("network_curves", "Bias², variance and test error over the steps", figure_of(study), data_of(study));
}

}  // namespace statistics
