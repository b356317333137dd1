// SPDX-License-Identifier: MIT
#include "comparison.hpp"

#include <cmath>
#include <cstdio>
#include <string>

#include "chart.hpp"
#include "presentation/clock.hpp"
#include "presentation/files.hpp"
#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/page.hpp"
#include "presentation/progress.hpp"
#include "report.hpp"
#include "training.hpp"

namespace cifar {
namespace {

namespace fs = std::filesystem;
using presentation::formatted;
using presentation::make_writable;
using presentation::Progress;
using presentation::seconds_now;

/// Gradients of single images.
double work_of(const RunSettings& run) {
  return run.planned_gradients() * static_cast<double>(run.epochs * run.train_size);
}

std::string label_of(const RunSettings& run) { return run.optimizer + ", seed " + std::to_string(run.seed); }

std::string epoch_line(const RunSettings& run, const EpochRecord& epoch) {
  std::string line = formatted("%s  epoch %lld/%lld  train loss %.3f, accuracy %.1f %%", label_of(run).c_str(),
                               static_cast<long long>(epoch.epoch), static_cast<long long>(run.epochs),
                               epoch.train_loss, 100.0 * epoch.train_accuracy);
  if (std::isfinite(epoch.test_accuracy))
    line += formatted("; test loss %.3f, accuracy %.1f %%", epoch.test_loss, 100.0 * epoch.test_accuracy);
  return line + formatted("  (%.1f s)", epoch.seconds);
}

double images_before(const Moment& moment, const RunSettings& run) {
  return static_cast<double>((moment.epoch - 1) * run.train_size + moment.images);
}

/// One run, with the progress of all runs.
class Watched {
 public:
  Watched(Run& run, Progress& progress, fs::path checkpoint, bool every_epoch)
      : run_(run), progress_(progress), checkpoint_(std::move(checkpoint)), every_epoch_(every_epoch) {}

  bool train() {
    first_image_ = images_before(run_.moment(), run_.settings());
    progress_.skip(run_.settings().planned_gradients() * first_image_);
    start_ = seconds_now();
    const bool finished =
        run_.train([this] { return go_on(); }, [this](const EpochRecord& epoch) { after_epoch(epoch); });
    if (!finished) save();
    progress_.clear();
    return finished;
  }

 private:
  bool go_on() {
    const RunSettings& settings = run_.settings();
    progress_.advance(work_of(settings) / static_cast<double>(settings.epochs * settings.batches()));
    if (progress_.due()) {
      const Moment now = run_.moment();
      const double images = images_before(now, settings);
      progress_.show({formatted("%s  epoch %lld/%lld", label_of(settings).c_str(), static_cast<long long>(now.epoch),
                                static_cast<long long>(now.epochs)),
                      images / work_of(settings) * settings.planned_gradients(),
                      formatted("loss %.3f  acc %.1f %%  %.0f img/s", now.loss, 100.0 * now.accuracy,
                                (images - first_image_) / (seconds_now() - start_)),
                      progress_.seconds_left()});
    }
    return !presentation::interrupted();
  }

  void after_epoch(const EpochRecord& epoch) {
    save();
    if (every_epoch_ || epoch.epoch == run_.settings().epochs) progress_.say(epoch_line(run_.settings(), epoch));
  }

  void save() const {
    if (!checkpoint_.empty()) run_.save(checkpoint_);
  }

  Run& run_;
  Progress& progress_;
  fs::path checkpoint_;
  bool every_epoch_;
  double first_image_ = 0.0, start_ = 0.0;
};

bool to_be_resumed(const Comparison& comparison, size_t i) {
  return comparison.resume && fs::exists(comparison.checkpoints[i]);
}

void write_results(const Comparison& comparison, const std::vector<RunResult>& results) {
  presentation::Page page(comparison.out, "Optimizers compared on CIFAR images");
  page.table("At the end of training; mean ± standard deviation over the seeds", table(results));
  if (const std::string words = conclusions(results); !words.empty()) page.verbatim(words);
  page.figure("curves", "Over the epochs, and at the end of every seed", chart(results), csv(results));
}

}  // namespace

void prepare(const Comparison& comparison, const Dataset& data) {
  make_writable(comparison.out, "--out");
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    const fs::path& checkpoint = comparison.checkpoints[i];
    if (checkpoint.empty()) continue;
    make_writable(fs::absolute(checkpoint).parent_path(), "--checkpoint");
    if (to_be_resumed(comparison, i)) Run(data, comparison.runs[i]).load(checkpoint);
  }
}

Outcome carry_out(const Comparison& comparison, const Dataset& data) {
  double work = 0.0;
  for (const RunSettings& run : comparison.runs) work += work_of(run);
  Progress progress(stdout, work);
  Outcome outcome;
  for (size_t i = 0; i < comparison.runs.size(); ++i) {
    Run run(data, comparison.runs[i]);
    if (to_be_resumed(comparison, i)) run.load(comparison.checkpoints[i]);
    Watched watched(run, progress, comparison.checkpoints[i], comparison.runs.size() == 1);
    outcome.finished = watched.train();
    outcome.results.push_back({run.settings(), run.history(), outcome.finished ? run.measure() : Measurement()});
    write_results(comparison, outcome.results);
    if (!outcome.finished) break;
  }
  return outcome;
}

}  // namespace cifar
