// SPDX-License-Identifier: MIT
#include "chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include "formatted.hpp"
#include "statistics.hpp"

namespace cifar {
namespace {

constexpr double kPanelWidth = 320, kPanelHeight = 300, kTop = 110, kGap = 78, kLeft = 70, kBottom = 60;
constexpr double kWidth = kLeft + 3 * kPanelWidth + 2 * kGap + 20, kHeight = kTop + kPanelHeight + kBottom;

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

using Value = std::function<double(const EpochRecord&)>;

std::string escaped(const std::string& words) {
  std::string text;
  for (const char c : words) text += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  return text;
}

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

struct Axis {
  double from, to;  ///< in the data's units
  double at, end;   ///< in the picture's
  double operator()(double value) const { return at + (value - from) / (to - from) * (end - at); }
};

/// Covers the values, from tick to tick.
Axis axis_for(const std::vector<double>& values, double at, double end) {
  const Spread spread = spread_of(values);
  if (values.empty()) return {0.0, 1.0, at, end};
  const double step = tick_step(std::max(spread.highest - spread.lowest, 0.5));
  return {std::floor(spread.lowest / step - 0.1) * step, (std::floor(spread.highest / step) + 1.0) * step, at, end};
}

class Panel {
 public:
  Panel(int index, Axis x, Axis y, const std::string& title, const std::string& x_name) : x_(x), y_(y) {
    const double left = left_of(index), right = left + kPanelWidth, bottom = kTop + kPanelHeight;
    const double step = tick_step(y.to - y.from);
    for (double value = y.from; value <= y.to + step / 100.0; value += step) {
      svg_ += line(left, y(value), right, y(value), "#dddddd");
      svg_ += label(left - 8, y(value) + 4, "text-anchor=\"end\"", formatted("%g", std::round(value * 1e6) / 1e6));
    }
    svg_ += line(left, kTop, left, bottom, "#222222") + line(left, bottom, right, bottom, "#222222");
    svg_ += label(left - 40, kTop - 16, "font-weight=\"bold\"", title);
    svg_ += label((left + right) / 2, bottom + 42, "text-anchor=\"middle\"", x_name);
  }

  static double left_of(int index) { return kLeft + index * (kPanelWidth + kGap); }
  static Axis vertical(const std::vector<double>& values) { return axis_for(values, kTop + kPanelHeight, kTop); }

  void x_tick(double value, const std::string& words) {
    svg_ += line(x_(value), kTop + kPanelHeight, x_(value), kTop + kPanelHeight + 5, "#222222");
    svg_ += label(x_(value), kTop + kPanelHeight + 20, "text-anchor=\"middle\"", words);
  }
  void band(const std::vector<double>& xs, const std::vector<Spread>& spreads, const Look& look) {
    std::string points;
    for (size_t i = 0; i < xs.size(); ++i) points += formatted("%.1f,%.1f ", x_(xs[i]), y_(spreads[i].highest));
    for (size_t i = xs.size(); i-- > 0;) points += formatted("%.1f,%.1f ", x_(xs[i]), y_(spreads[i].lowest));
    svg_ += formatted("<polygon fill=\"%s\" fill-opacity=\"0.13\" points=\"", look.colour) + points + "\"/>\n";
  }
  void curve(const std::vector<double>& xs, const std::vector<Spread>& spreads, const Look& look) {
    std::string points;
    for (size_t i = 0; i < xs.size(); ++i) points += formatted("%.1f,%.1f ", x_(xs[i]), y_(spreads[i].mean));
    svg_ += formatted("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"",
                      look.colour, look.dashes) +
            points + "\"/>\n";
    if (!xs.empty()) svg_ += mark(x_(xs.back()), y_(spreads.back().mean), look, look.colour);
  }
  void point(double x, double y, const Look& look, const char* fill) { svg_ += mark(x_(x), y_(y), look, fill); }
  void bar(double from, double to, double y, const Look& look) {
    svg_ += line(x_(from), y_(y), x_(to), y_(y), look.colour);
  }

  const std::string& svg() const { return svg_; }

 private:
  Axis x_, y_;
  std::string svg_;
};

const Look& look_of(size_t optimizer) { return kLooks[optimizer % kLooks.size()]; }

/// The values of one optimizer's runs at every epoch that has some.
void collect(const std::vector<RunResult>& results, const std::string& optimizer, const Value& value,
             std::vector<double>& epochs, std::vector<Spread>& spreads) {
  for (int64_t epoch = 1; epoch <= results.front().settings.epochs; ++epoch) {
    std::vector<double> values;
    for (const RunResult& run : results)
      for (const EpochRecord& record : run.history)
        if (run.settings.optimizer == optimizer && record.epoch == epoch && std::isfinite(value(record)))
          values.push_back(value(record));
    if (values.empty()) continue;
    epochs.push_back(static_cast<double>(epoch));
    spreads.push_back(spread_of(values));
  }
}

std::string curves(int index, const std::vector<RunResult>& results, const std::string& title, const Value& value) {
  std::vector<double> all;
  for (const RunResult& run : results)
    for (const EpochRecord& record : run.history)
      if (std::isfinite(value(record))) all.push_back(value(record));
  const double left = Panel::left_of(index);
  const auto epochs = static_cast<double>(results.front().settings.epochs);
  Panel panel(index, {0.0, epochs, left, left + kPanelWidth}, Panel::vertical(all), title, "epoch");
  const double step = std::max(1.0, tick_step(epochs));
  for (double epoch = 0.0; epoch <= epochs; epoch += step) panel.x_tick(epoch, formatted("%g", epoch));
  const std::vector<std::string> optimizers = optimizers_of(results);
  for (const bool bands : {true, false})
    for (size_t i = 0; i < optimizers.size(); ++i) {
      std::vector<double> xs;
      std::vector<Spread> spreads;
      collect(results, optimizers[i], value, xs, spreads);
      if (bands)
        panel.band(xs, spreads, look_of(i));
      else
        panel.curve(xs, spreads, look_of(i));
    }
  return panel.svg();
}

/// Every run's last test accuracy as a dot, the mean as a bar.
std::string endings(int index, const std::vector<RunResult>& results) {
  const auto points = [](const RunResult& run) { return 100.0 * test_accuracy(run); };
  const std::vector<std::string> optimizers = optimizers_of(results);
  std::vector<double> all;
  for (const RunResult& run : results)
    if (std::isfinite(points(run))) all.push_back(points(run));
  const double left = Panel::left_of(index);
  Panel panel(index, {-0.5, static_cast<double>(optimizers.size()) - 0.5, left, left + kPanelWidth},
              Panel::vertical(all), "Test accuracy at the end (%)", "each mark one seed, the bar their mean");
  for (size_t i = 0; i < optimizers.size(); ++i) {
    const auto column = static_cast<double>(i);
    panel.x_tick(column, optimizers[i]);
    const std::vector<double> values = values_of(results, optimizers[i], points);
    for (const double value : values) panel.point(column, value, look_of(i), "none");
    if (!values.empty()) panel.bar(column - 0.3, column + 0.3, spread_of(values).mean, look_of(i));
  }
  return panel.svg();
}

std::string legend(const std::vector<std::string>& optimizers) {
  std::string svg;
  double x = kLeft - 40;
  for (size_t i = 0; i < optimizers.size(); ++i) {
    const Look& look = look_of(i);
    svg += formatted("<path d=\"M%.1f,68h36\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n", x,
                     look.colour, look.dashes);
    svg += mark(x + 18, 68, look, look.colour) + label(x + 44, 72, "", optimizers[i]);
    x += 70 + 8.0 * static_cast<double>(optimizers[i].size());
  }
  return svg;
}

std::string caption(const std::vector<RunResult>& results) {
  const RunSettings& run = results.front().settings;
  const auto seeds = std::count_if(results.begin(), results.end(),
                                   [&](const RunResult& other) { return other.settings.optimizer == run.optimizer; });
  return formatted("%s, %lld training images with %g %% wrong labels, %lld test images; model %s; %d seed%s%s",
                   run.dataset.c_str(), static_cast<long long>(run.train_size), 100.0 * run.label_noise,
                   static_cast<long long>(run.test_size), run.model.c_str(), static_cast<int>(seeds),
                   seeds == 1 ? "" : "s", seeds == 1 ? "" : "; lines are means, bands the range over the seeds");
}

}  // namespace

std::string chart(const std::vector<RunResult>& results) {
  std::string svg = formatted(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" font-family=\"Helvetica, Arial, "
      "sans-serif\" "
      "font-size=\"13\" fill=\"#222222\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
      kWidth, kHeight);
  svg += label(kLeft - 40, 26, "font-size=\"17\" font-weight=\"bold\"", "Optimizers compared on CIFAR images");
  svg += label(kLeft - 40, 46, "", caption(results)) + legend(optimizers_of(results));
  svg += curves(0, results, "Test accuracy (%)", [](const EpochRecord& epoch) { return 100.0 * epoch.test_accuracy; });
  svg += curves(1, results, "Accuracy on the training labels (%)",
                [](const EpochRecord& epoch) { return 100.0 * epoch.train_accuracy; });
  return svg + endings(2, results) + "</svg>\n";
}

}  // namespace cifar
