// SPDX-License-Identifier: MIT
#include "sharpness/report.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "cifar/optimizer_name.hpp"
#include "presentation/formatted.hpp"
#include "presentation/spread.hpp"
#include "sharpness/ranks.hpp"

namespace flatness {
namespace {

using presentation::formatted;
using presentation::Table;

/// One number of a run, as its column shows it.
struct Column {
  std::string name, unit, format;
  std::function<double(const Measured&)> value;
  bool is_sharpness = false;
};

std::vector<Column> columns(const Settings& settings) {
  std::vector<Column> all = {
      {"test accuracy", "%", "%.1f", [](const Measured& m) { return 100.0 * m.test.accuracy; }},
      {"train accuracy", "%", "%.1f", [](const Measured& m) { return 100.0 * m.train.accuracy; }},
      {"test loss", "", "%.3f", [](const Measured& m) { return m.test.loss; }},
      {"train loss", "", "%.3f", [](const Measured& m) { return m.train.loss; }},
      {"trace", "", "%.4g", [](const Measured& m) { return m.trace.mean; }, true},
      {"top eigenvalue", "", "%.3g", [](const Measured& m) { return m.top.values.front(); }, true}};
  for (size_t i = 0; i < settings.rhos.size(); ++i)
    all.push_back({"SAM sharpness", formatted("rho %g", settings.rhos[i]), "%.4f",
                   [i](const Measured& m) { return m.sam[i].sharpness; }, true});
  all.push_back({"average case", formatted("rho %g", settings.average_rho), "%.4f",
                 [](const Measured& m) { return m.average.mean; }, true});
  all.push_back({"worst case", formatted("rho %g", settings.worst_rho), "%.3f",
                 [](const Measured& m) { return m.worst.mean; }, true});
  return all;
}

std::vector<double> values_of(const Group& group, const Column& column) {
  std::vector<double> values;
  for (const Measured* run : group.runs) values.push_back(column.value(*run));
  return values;
}

std::string with_error(const steppe::sharpness::Estimate& estimate, const char* format) {
  const std::string mean = formatted(format, estimate.mean);
  return std::isfinite(estimate.standard_error) ? mean + " ± " + formatted("%.2g", estimate.standard_error) : mean;
}

/// Fields that distinguish the runs of one optimizer, except the seed.
std::set<std::string> telling_fields(const std::vector<Measured>& results, const std::string& optimizer) {
  std::set<std::string> names;
  const Measured* first = nullptr;
  for (const Measured& m : results) {
    if (m.run.optimizer != optimizer) continue;
    if (first == nullptr) first = &m;
    const auto here = m.run.fields(), there = first->run.fields();
    for (size_t i = 0; i < here.size(); ++i)
      if (here[i].first != "seed" && here[i] != there[i]) names.insert(here[i].first);
  }
  return names;
}

std::string group_name(const std::vector<Measured>& results, const Measured& m) {
  std::string name = m.run.optimizer;
  const std::set<std::string> telling = telling_fields(results, name);
  for (const auto& [field, value] : m.run.fields())
    if (telling.count(field) > 0) name += ", " + field + " " + value;
  return name;
}

/// "on 2 of 3 seeds" with a smaller value than the first group's run of the same seed.
std::string comparison(const Group& first, const Group& other, const Column& column) {
  int pairs = 0, smaller = 0;
  double ratio = 0.0;
  for (const Measured* a : first.runs)
    for (const Measured* b : other.runs) {
      if (a->run.seed != b->run.seed) continue;
      ++pairs;
      smaller += column.value(*b) < column.value(*a);
      ratio += column.value(*b) / column.value(*a);
    }
  if (pairs == 0) return "";
  return formatted("%s%s%s: smaller on %d of %d seed%s (%.2f times on average)", column.name.c_str(),
                   column.unit.empty() ? "" : ", ", column.unit.c_str(), smaller, pairs, pairs == 1 ? "" : "s",
                   ratio / pairs);
}

}  // namespace

std::vector<Group> groups_of(const std::vector<Measured>& results) {
  std::vector<Group> groups;
  for (const Measured& m : results) {
    const std::string name = group_name(results, m);
    const auto found = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.name == name; });
    if (found == groups.end())
      groups.push_back({name, {&m}});
    else
      found->runs.push_back(&m);
  }
  return groups;
}

std::string label_of(const Group& group, const Measured& run) {
  return group.name + ", seed " + std::to_string(run.run.seed);
}

Table comparison_table(const std::vector<Measured>& results, const Settings& settings) {
  Table table{{{"optimizer", "runs"}, {"", ""}}, 2};
  const std::vector<Column> all = columns(settings);
  for (const Column& column : all) {
    table.rows[0].push_back(column.name);
    table.rows[1].push_back(column.unit);
  }
  for (const Group& group : groups_of(results)) {
    auto& row = table.rows.emplace_back();
    row = {group.name, std::to_string(group.runs.size())};
    for (const Column& column : all)
      row.push_back(presentation::mean_and_deviation(values_of(group, column), column.format.c_str()));
  }
  return table;
}

Table runs_table(const std::vector<Measured>& results, const Settings& settings) {
  Table table{{{"run", "epochs"}, {"", ""}}, 2};
  const std::vector<Column> all = columns(settings);
  for (const Column& column : all) {
    table.rows[0].push_back(column.name);
    table.rows[1].push_back(column.unit);
  }
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      auto& row = table.rows.emplace_back();
      row = {label_of(group, *run),
             formatted("%lld/%lld", static_cast<long long>(run->epochs), static_cast<long long>(run->run.epochs))};
      for (const Column& column : all) {
        if (column.name == "trace")
          row.push_back(with_error(run->trace, "%.4g"));
        else if (column.name == "average case")
          row.push_back(with_error(run->average, "%.4f"));
        else if (column.name == "worst case")
          row.push_back(with_error(run->worst, "%.3f"));
        else
          row.push_back(formatted(column.format.c_str(), column.value(*run)));
      }
    }
  return table;
}

Table eigenvalue_table(const std::vector<Measured>& results) {
  Table table{{{"run", "products"}}};
  const size_t k = results.empty() ? 0 : results.front().top.values.size();
  for (size_t i = 0; i < k; ++i) table.rows[0].push_back(formatted("%zu (residual)", i + 1));
  table.rows[0].push_back("smallest node");
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      auto& row = table.rows.emplace_back();
      row = {label_of(group, *run), formatted("%lld%s", static_cast<long long>(run->top.products),
                                              run->top.converged ? "" : ", not converged")};
      for (size_t i = 0; i < k && i < run->top.values.size(); ++i)
        row.push_back(formatted("%.4g (%.1g)", run->top.values[i], run->top.residuals[i]));
      row.resize(k + 2);
      row.push_back(formatted("%.3g", *std::min_element(run->density.nodes.begin(), run->density.nodes.end())));
    }
  return table;
}

Table rank_table(const std::vector<Measured>& results, const Settings& settings) {
  Table table{{{"measure", "with test error", "with test error less train error"}}};
  if (results.size() < 4) return table;
  std::vector<double> errors, gaps;
  for (const Measured& m : results) {
    errors.push_back(1.0 - m.test.accuracy);
    gaps.push_back(m.train.accuracy - m.test.accuracy);
  }
  for (const Column& column : columns(settings)) {
    if (!column.is_sharpness) continue;
    std::vector<double> values;
    for (const Measured& m : results) values.push_back(column.value(m));
    table.rows.push_back({column.name + (column.unit.empty() ? "" : ", " + column.unit),
                          formatted("%+.2f", rank_correlation(values, errors)),
                          formatted("%+.2f", rank_correlation(values, gaps))});
  }
  return table;
}

Table numbers_csv(const std::vector<Measured>& results, const Settings& settings) {
  using presentation::cell;
  Table table{{{"group", "optimizer", "seed", "source", "epochs", "images", "parameters", "trace_standard_error",
                "average_standard_error", "worst_standard_error"}}};
  const std::vector<Column> all = columns(settings);
  for (const Column& column : all)
    table.rows[0].push_back(column.name + (column.unit.empty() ? "" : " " + column.unit));
  for (const Group& group : groups_of(results))
    for (const Measured* run : group.runs) {
      auto& row = table.rows.emplace_back();
      row = {group.name,
             run->run.optimizer,
             std::to_string(run->run.seed),
             run->source,
             std::to_string(run->epochs),
             std::to_string(run->images),
             std::to_string(run->parameters),
             cell(run->trace.standard_error),
             cell(run->average.standard_error),
             cell(run->worst.standard_error)};
      for (const Column& column : all) row.push_back(cell(column.value(*run)));
    }
  return table;
}

std::string conditions(const std::vector<Measured>& results, const Settings& settings) {
  if (results.empty()) return "Nothing was measured.";
  const Measured& first = results.front();
  std::set<std::string> products;
  for (const Measured& m : results) products.insert(m.products);
  std::string words = formatted(
      "%s, model %s (%lld parameters, all of them measured), in evaluation mode on the first %lld training images in "
      "batches of %lld, with the labels that were trained on (%g %% of them wrong). Test loss and accuracy are of all "
      "%lld test images. Random vectors and directions are those of seed %llu for every run. Products with the "
      "Hessian: ",
      first.run.dataset.c_str(), first.run.model.c_str(), static_cast<long long>(first.parameters),
      static_cast<long long>(first.images), static_cast<long long>(settings.batch_size), 100.0 * first.run.label_noise,
      static_cast<long long>(first.run.test_size), static_cast<unsigned long long>(settings.seed));
  for (const std::string& way : products) words += (way == *products.begin() ? "" : "; for other runs ") + way;
  return words + ".";
}

std::string conclusions(const std::vector<Measured>& results, const Settings& settings) {
  std::string words;
  const std::vector<Group> groups = groups_of(results);
  const auto base = std::find_if(groups.begin(), groups.end(), [](const Group& group) {
    return cifar::OptimizerName::parse(group.runs.front()->run.optimizer).method.empty();
  });
  const Group* first = groups.empty() ? nullptr : base == groups.end() ? &groups.front() : &*base;
  for (const Group& group : groups) {
    std::string lines;
    for (const Column& column : columns(settings))
      if (column.is_sharpness && &group != first)
        if (const std::string line = comparison(*first, group, column); !line.empty()) lines += "    " + line + '\n';
    if (!lines.empty()) words += "  " + group.name + " against " + first->name + '\n' + lines;
  }
  return words;
}

}  // namespace flatness
