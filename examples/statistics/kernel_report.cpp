// SPDX-License-Identifier: MIT
#include "kernel_report.hpp"

#include <algorithm>
#include <cmath>

#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"

namespace statistics {
namespace {

using presentation::cell;
using presentation::Figure;
using presentation::formatted;
using presentation::Panel;
using presentation::Series;
using presentation::Spread;
using presentation::spread_of;

std::string step_text(const KernelStudy& study, const Stop& stop) {
  const bool last = stop.k == static_cast<size_t>(study.settings.iterations);
  return std::to_string(stop.k) + (last ? " (end)" : "");
}

/// The closed form's value where `part` is 0: bias^2, 1: variance, 2: risk.
double value_of(const Curves& curves, size_t k, double sigma, int part) {
  const double variance = sigma * sigma * curves.unit_variance[k];
  return part == 0 ? curves.bias[k] : part == 1 ? variance : curves.bias[k] + variance;
}

const Estimate& estimate_of(const Decomposition& seen, int part) {
  return part == 0 ? seen.bias : part == 1 ? seen.variance : seen.risk;
}

std::vector<int64_t> drawn_steps(const KernelStudy& study) { return logarithmic_steps(study.settings.iterations, 200); }

Series curve(const KernelStudy& study, size_t method, double sigma, int part) {
  Series series{study.methods[method].name, {}, {}, {}, {}};
  for (const int64_t k : drawn_steps(study)) {
    if (k == 0) continue;
    series.x.push_back(static_cast<double>(k));
    series.y.push_back(value_of(study.curves[method], static_cast<size_t>(k), sigma, part));
  }
  return series;
}

Series marks(const KernelStudy& study, const KernelLevel& level, size_t method, int part) {
  Series series{study.methods[method].name, {}, {}, {}, {}, Series::Style::Marks};
  if (method >= level.simulated.size()) return series;
  const Simulated& seen = level.simulated[method];
  for (size_t i = 0; i < seen.steps.size(); ++i) {
    const Estimate& estimate = estimate_of(seen.at[i], part);
    if (seen.steps[i] == 0) continue;
    series.x.push_back(static_cast<double>(seen.steps[i]));
    series.y.push_back(estimate.value);
    series.low.push_back(estimate.value - estimate.error);
    series.high.push_back(estimate.value + estimate.error);
  }
  return series;
}

Figure curves_figure(const KernelStudy& study) {
  Figure figure("Kernel regression: GD and SAM over the steps",
                formatted("lines: closed form; hollow marks: means of %lld noise draws, bands one standard error "
                          "(values of 0 or less are left out)",
                          static_cast<long long>(study.settings.draws)));
  constexpr const char* kParts[] = {"Bias²", "Variance", "Risk"};
  for (const KernelLevel& level : study.levels) {
    if (level.sigma == 0.0) continue;
    for (int part = 0; part < 3; ++part) {
      Panel panel{
          formatted("%s, sigma %g", kParts[part], level.sigma), {"step k", true}, {"mean over the points", true}, {}};
      for (const size_t method : {kGd, kSam}) {
        panel.series.push_back(curve(study, method, level.sigma, part));
        panel.series.push_back(marks(study, level, method, part));
      }
      figure.add(panel);
    }
  }
  return figure;
}

presentation::Table curves_data(const KernelStudy& study) {
  presentation::Table data;
  data.rows = {{"sigma", "method", "k", "bias2", "variance", "risk", "simulated_bias2", "bias2_error",
                "simulated_variance", "variance_error", "simulated_risk", "risk_error"}};
  for (const KernelLevel& level : study.levels)
    for (size_t method = 0; method < kMethods; ++method) {
      std::vector<int64_t> steps = drawn_steps(study);
      const Simulated seen = method < level.simulated.size() ? level.simulated[method] : Simulated();
      steps.insert(steps.end(), seen.steps.begin(), seen.steps.end());
      std::sort(steps.begin(), steps.end());
      steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
      for (const int64_t k : steps) {
        const auto found = std::find(seen.steps.begin(), seen.steps.end(), k);
        const Decomposition at =
            found == seen.steps.end() ? Decomposition() : seen.at[size_t(found - seen.steps.begin())];
        auto& row = data.rows.emplace_back();
        row = {formatted("%g", level.sigma), study.methods[method].name, std::to_string(k)};
        for (int part = 0; part < 3; ++part)
          row.push_back(cell(value_of(study.curves[method], static_cast<size_t>(k), level.sigma, part)));
        for (int part = 0; part < 3; ++part) {
          row.push_back(cell(estimate_of(at, part).value));
          row.push_back(cell(estimate_of(at, part).error));
        }
      }
    }
  return data;
}

/// Percent by which SAM's risk exceeds GD's, and that of GD with the longer step.
std::vector<Panel> difference_panels(const KernelStudy& study) {
  std::vector<Panel> panels;
  for (const size_t method : {kSam, kLongGd}) {
    Panel panel{"Risk of " + study.methods[method].name + " over GD's (%)", {"step k", true}, {}, {}};
    for (size_t i = 0; i < study.levels.size() && i < 6; ++i) {
      const double sigma = study.levels[i].sigma;
      Series series{formatted("sigma %g", sigma), {}, {}, {}, {}};
      for (const int64_t k : drawn_steps(study)) {
        if (k == 0) continue;
        const double own = value_of(study.curves[method], static_cast<size_t>(k), sigma, 2);
        const double base = value_of(study.curves[kGd], static_cast<size_t>(k), sigma, 2);
        series.x.push_back(static_cast<double>(k));
        series.y.push_back(100.0 * (own / base - 1.0));
      }
      panel.series.push_back(series);
    }
    panels.push_back(panel);
  }
  return panels;
}

presentation::Table difference_data(const std::vector<Panel>& panels) {
  presentation::Table data;
  data.rows = {{"panel", "sigma", "k", "percent"}};
  for (const Panel& panel : panels)
    for (const Series& series : panel.series)
      for (size_t i = 0; i < series.x.size(); ++i)
        data.rows.push_back({panel.title, series.name, cell(series.x[i]), cell(series.y[i])});
  return data;
}

std::string interval(const std::vector<double>& gaps) {
  const Spread spread = spread_of(gaps);
  const double half = presentation::half_interval(spread);
  if (spread.count < 2) return formatted("%+.3f %% on one set of points", spread.mean);
  return formatted("%+.3f %% on average over %d sets of points (95 %% interval %+.3f to %+.3f): ", spread.mean,
                   static_cast<int>(spread.count), spread.mean - half, spread.mean + half) +
         presentation::verdict(spread, "GD ahead", "SAM ahead");
}

}  // namespace

std::string conditions(const KernelStudy& study) {
  const KernelSettings& s = study.settings;
  const Descent& sam = study.methods[kSam];
  std::string text = formatted(
      "Kernel regression: %lld points uniform on (-1, 1), f*(x) = sin(2 pi x), kernel exp(-%g |x - x'|^2), %lld steps "
      "from 0 of un-normalised SAM and of GD, both with eta %.4g; d_1 %.4g, rho %.4g = %g/d_1.\n",
      static_cast<long long>(s.n), s.bandwidth, static_cast<long long>(s.iterations), sam.eta, study.problem.largest(),
      sam.rho, s.rho);
  text += formatted("The condition eta d_1 (1 + rho d_1) <= 1 %s: it is %.4g. ",
                    study.condition_holds() ? "holds" : "is broken", study.condition);
  if (study.larger_bias == 0 && study.smaller_variance == 0)
    return text +
           formatted(
               "At every one of the %lld steps SAM's bias^2 is no larger and its variance no smaller than GD's.\n",
               static_cast<long long>(s.iterations));
  return text + formatted("SAM's bias^2 is larger than GD's at %zu steps, its variance smaller at %zu, of %lld.\n",
                          study.larger_bias, study.smaller_variance, static_cast<long long>(s.iterations));
}

presentation::Table table(const KernelStudy& study) {
  presentation::Table table;
  table.heads = 2;
  table.rows = {{"sigma", "GD", "", "SAM", "", "SAM to GD", "over designs", "GD, longer step", "", "over designs"},
                {"", "best k", "risk", "best k", "risk", "%", "%", "best k", "risk", "% to GD"}};
  for (const KernelLevel& level : study.levels) {
    const Stop &gd = level.best[kGd], &sam = level.best[kSam], &longer = level.best[kLongGd];
    table.rows.push_back({formatted("%g", level.sigma), step_text(study, gd), formatted("%.5g", gd.risk),
                          step_text(study, sam), formatted("%.5g", sam.risk),
                          formatted("%+.3f", 100.0 * (sam.risk / gd.risk - 1.0)),
                          presentation::mean_and_deviation(level.gaps, "%+.3f"), step_text(study, longer),
                          formatted("%.5g", longer.risk), presentation::mean_and_deviation(level.long_gaps, "%+.3f")});
  }
  return table;
}

std::string conclusions(const KernelStudy& study) {
  std::string text;
  for (const KernelLevel& level : study.levels) {
    text += formatted("sigma %g: SAM's risk is lower at k = ", level.sigma) + stretches_of(level.ahead, Ahead::First) +
            "; GD's at " + stretches_of(level.ahead, Ahead::Second) + ".\n";
    text += "  At as many gradients (k of SAM, 2 k of GD): SAM's at k = " +
            stretches_of(level.ahead_at_equal_cost, Ahead::First) + "; GD's at " +
            stretches_of(level.ahead_at_equal_cost, Ahead::Second) + ".\n";
    text += "  Each at its best stop: " + interval(level.gaps) + ".\n";
  }
  return text;
}

std::string agreement(const KernelStudy& study) {
  double deviation = 0.0;
  for (const KernelLevel& level : study.levels) deviation = std::max(deviation, level.largest_deviation);
  return formatted(
      "Agreement: closed form and iteration differ by at most %.1e, and weights trained by torch::optim::SGD inside "
      "steppe::Perturbation by %.1e (first %lld steps); the simulation of %lld draws by at most %.1f standard "
      "errors.\n",
      study.iteration_difference, study.trained_difference, static_cast<long long>(study.checked_steps),
      static_cast<long long>(study.settings.draws), deviation);
}

void add_to(presentation::Page& page, const KernelStudy& study) {
  page.heading("Kernel regression");
  page.paragraph(conditions(study));
  page.table("Each method at its best stopping time; the last column of each pair: mean ± deviation over the designs",
             table(study));
  page.verbatim(conclusions(study));
  page.paragraph(agreement(study));
  page.figure("kernel_curves", "Bias², variance and risk over the steps", curves_figure(study), curves_data(study));
  const std::vector<Panel> panels = difference_panels(study);
  Figure figure("Kernel regression: risk against that of GD at the same step", "under 0: lower than GD's");
  for (const Panel& panel : panels) figure.add(panel);
  page.figure("kernel_differences", "Where SAM is ahead of GD (under 0), and GD with a longer step", figure,
              difference_data(panels));
}

}  // namespace statistics
