// SPDX-License-Identifier: MIT
#include "sharpness/study.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include "cifar/arguments.hpp"
#include "cifar/optimizer_name.hpp"
#include "presentation/files.hpp"
#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/page.hpp"
#include "presentation/progress.hpp"
#include "sharpness/pictures.hpp"
#include "sharpness/report.hpp"

namespace flatness {
namespace {

namespace fs = std::filesystem;
using presentation::formatted;

std::string name_of(const Source& source) { return source.run.optimizer + ", seed " + std::to_string(source.run.seed); }

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".pt") files.push_back(entry.path());
  if (files.empty()) throw std::runtime_error(folder.string() + " contains no checkpoint (*.pt)");
  std::sort(files.begin(), files.end());
  return files;
}

/// A checkpoint contains its last test loss, which is different on other images.
void expect_same_images(const Source& source, cifar::Run& run, const cifar::Dataset& data) {
  if (run.history().empty() || run.moment().images > 0) return;  // in the middle of an epoch: not in any record
  const double then = run.history().back().test_loss, now = run.evaluate(data.test).loss;
  if (std::isfinite(then) && std::abs(now - then) > 1e-3 * (1.0 + std::abs(then)))
    throw std::runtime_error(source.checkpoint.string() +
                             formatted(" had a test loss of %.4f, on these images it is %.4f: they are not those that "
                                       "it was trained with; name their folder with --data",
                                       then, now));
}

/// Progress of all measurements in one bar.
class Watch {
 public:
  Watch(const Study& study, double work) : study_(study), progress_(stdout, work) {}

  Measured measured(const Source& source, const cifar::Dataset& data, bool with_plane) {
    cifar::Run run = run_of(source, data);
    const double planned = planned_work(study_.settings, with_plane);
    double done = 0.0;
    const std::string name = name_of(source);
    Measured result =
        measure(run, data, study_.settings, with_plane, [&](const char* what, int64_t step, int64_t steps) {
          const double work = work_of_step(study_.settings, what);
          done += work;
          progress_.advance(work, formatted("%s: %s %lld/%lld", name.c_str(), what, static_cast<long long>(step),
                                            static_cast<long long>(steps)));
          if (presentation::interrupted()) throw presentation::Interrupted();
        });
    progress_.skip(planned - done);
    result.source = source.checkpoint.filename().string();
    progress_.say(formatted("%s: trace %.4g ± %.2g, top eigenvalue %.4g, SAM sharpness %.4g at rho %g", name.c_str(),
                            result.trace.mean, result.trace.standard_error, result.top.values.front(),
                            result.sam.front().sharpness, study_.settings.rhos.front()));
    return result;
  }
  void clear() { progress_.clear(); }

 private:
  const Study& study_;
  presentation::Progress progress_;
};

void write_page(const Study& study, const std::vector<Measured>& results) {
  const Settings& settings = study.settings;
  presentation::Page page(study.out, "Sharpness of networks trained on CIFAR images");
  page.paragraph(conditions(results, settings));
  if (results.size() > 1) {
    page.table("Mean ± standard deviation over the seeds", comparison_table(results, settings));
    if (const std::string words = conclusions(results, settings); !words.empty()) page.verbatim(words);
  }
  page.table("Each run; ± is the standard error of its own draws", runs_table(results, settings));
  page.table("Largest eigenvalues of the Hessian, with |H v - lambda v|; and the smallest node of the spectral density",
             eigenvalue_table(results));
  if (const auto ranks = rank_table(results, settings); ranks.rows.size() > 1)
    page.table(formatted("Kendall's rank correlation over all %zu runs: +1 where the sharper run always generalises "
                         "worse, 0 for no relation",
                         results.size()),
               ranks);
  page.figure("spectrum", "Spectral density and the largest eigenvalues", spectrum_picture(results));
  page.figure("rise", "SAM sharpness over the radius, and a slice of the loss", rise_picture(results, settings));
  page.figure("plane", "The landscape around the weights", plane_picture(results));
  page.data("numbers", numbers_csv(results, settings));
}

/// A map is drawn of the first run of each optimizer.
bool gets_plane(const std::vector<Source>& sources, size_t i) {
  return std::none_of(sources.begin(), sources.begin() + static_cast<std::ptrdiff_t>(i),
                      [&](const Source& other) { return other.run.optimizer == sources[i].run.optimizer; });
}

}  // namespace

std::vector<Source> sources_of(const std::vector<fs::path>& checkpoints) {
  std::vector<Source> sources;
  for (const fs::path& given : checkpoints) {
    const bool folder = fs::is_directory(given);
    const auto first = static_cast<std::ptrdiff_t>(sources.size());
    for (const fs::path& file : folder ? files_of(given) : std::vector<fs::path>{given})
      sources.push_back({file, cifar::read_settings(file)});
    if (folder)
      std::stable_partition(sources.begin() + first, sources.end(), [](const Source& source) {
        return cifar::OptimizerName::parse(source.run.optimizer).method.empty();
      });
  }
  return sources;
}

std::vector<Source> quick_sources(uint64_t seed) {
  cifar::Arguments arguments;
  arguments.settings = cifar::fitting_settings(/*sample=*/true);
  arguments.settings.epochs = 2;
  arguments.settings.train_size = arguments.settings.test_size = 256;
  return {{{}, arguments.run("sgd", seed)}, {{}, arguments.run("sam", seed)}};
}

cifar::Dataset data_of(const Source& source, const cifar::Dataset& whole, at::Device device) {
  const cifar::RunSettings& run = source.run;
  if (run.dataset != whole.name || run.train_size > whole.train.labels.size(0) ||
      run.test_size > whole.test.labels.size(0))
    throw std::runtime_error(
        source.checkpoint.string() +
        formatted(" was trained on %lld and tested on %lld images of %s; the data given have %lld and %lld of %s: name "
                  "its folder with --data",
                  static_cast<long long>(run.train_size), static_cast<long long>(run.test_size), run.dataset.c_str(),
                  static_cast<long long>(whole.train.labels.size(0)), static_cast<long long>(whole.test.labels.size(0)),
                  whole.name.c_str()));
  return cifar::cut(whole, run.train_size, run.test_size, device);
}

cifar::Run run_of(const Source& source, const cifar::Dataset& data) {
  cifar::Run run(data, source.run);
  if (source.checkpoint.empty()) {
    if (!run.train([] { return !presentation::interrupted(); }, [](const cifar::EpochRecord&) {}))
      throw presentation::Interrupted();
    return run;
  }
  run.load(source.checkpoint);
  expect_same_images(source, run, data);
  return run;
}

Outcome carry_out(const Study& study, const cifar::Dataset& whole) {
  presentation::make_writable(study.out, "--out");
  for (const Source& source : study.sources) data_of(source, whole, at::kCPU);
  double work = 0.0;
  for (size_t i = 0; i < study.sources.size(); ++i) work += planned_work(study.settings, gets_plane(study.sources, i));
  Watch watch(study, work);
  Outcome outcome;
  try {
    for (size_t i = 0; i < study.sources.size(); ++i) {
      const cifar::Dataset data = data_of(study.sources[i], whole, study.device);
      outcome.results.push_back(watch.measured(study.sources[i], data, gets_plane(study.sources, i)));
      write_page(study, outcome.results);
    }
    outcome.finished = true;
  } catch (const presentation::Interrupted&) {
    watch.clear();
  }
  return outcome;
}

}  // namespace flatness
