// SPDX-License-Identifier: MIT
#include "comparison.hpp"

#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>

#include "chart.hpp"
#include "clock.hpp"
#include "formatted.hpp"
#include "interrupt.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "training.hpp"

namespace cifar {
namespace {

namespace fs = std::filesystem;

void make_writable(const fs::path& folder, const std::string& what) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  const fs::path probe = folder / ".steppe-cifar-probe";
  const bool written = !failed && static_cast<bool>(std::ofstream(probe) << "probe" << std::flush);
  fs::remove(probe, failed);
  if (!written) throw std::runtime_error("cannot write into " + folder.string() + "; " + what + " names another place");
}

void write_file(const fs::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  if (!(out << text << std::flush)) throw std::runtime_error("cannot write " + file.string());
}

/// Passes over the training images that an epoch makes.
double passes_of(const RunSettings& run) { return OptimizerName::parse(run.optimizer).method.empty() ? 1.0 : 2.0; }

double work_of(const RunSettings& run) { return passes_of(run) * static_cast<double>(run.epochs * run.train_size); }

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

/// One run beside the progress of all of them.
class Watched {
 public:
  Watched(Run& run, Progress& progress, fs::path checkpoint, bool every_epoch)
      : run_(run), progress_(progress), checkpoint_(std::move(checkpoint)), every_epoch_(every_epoch) {}

  bool train() {
    first_image_ = images_before(run_.moment(), run_.settings());
    progress_.skip(passes_of(run_.settings()) * first_image_);
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
      progress_.show({label_of(settings), now.epoch, now.epochs, images / work_of(settings) * passes_of(settings),
                      now.loss, now.accuracy, (images - first_image_) / (seconds_now() - start_),
                      progress_.seconds_left()});
    }
    return !interrupted();
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
  write_file(comparison.out / "results.csv", csv(results));
  write_file(comparison.out / "curves.svg", chart(results));
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
