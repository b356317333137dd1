// Carries out the measurements of several runs, with progress, and writes the page after each.
// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cifar/dataset.hpp"
#include "sharpness/measurement.hpp"

namespace flatness {

/// A run to be measured: that of a checkpoint, or one trained here.
struct Source {
  std::filesystem::path checkpoint;
  cifar::RunSettings run;
};

/// Files as given, and the *.pt of folders by name, plain base optimizers first. Errors: no files, foreign files.
std::vector<Source> sources_of(const std::vector<std::filesystem::path>& checkpoints);
/// The runs that --quick trains: sgd and sam, two epochs on 256 images of the sample.
std::vector<Source> quick_sources(uint64_t seed);

/// The data of a source's run, on a device. Errors: the run was made on another data set.
cifar::Dataset data_of(const Source& source, const cifar::Dataset& whole, at::Device device);

/// The run of a source at the end of its training. Errors: test images that are not those of its training.
cifar::Run run_of(const Source& source, const cifar::Dataset& data);

struct Study {
  std::vector<Source> sources;
  Settings settings;
  std::filesystem::path out;
  at::Device device = at::kCPU;
};

/// What was measured before an interruption or to the end.
struct Outcome {
  std::vector<Measured> results;
  bool finished = false;
};
Outcome carry_out(const Study& study, const cifar::Dataset& whole);

}  // namespace flatness
