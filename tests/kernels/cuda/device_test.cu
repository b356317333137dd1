// The CUDA kernels on a device, against the definition.
// SPDX-License-Identifier: MIT
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <steppe/kernels/cuda/cuda.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "expectations.hpp"
#include "model.hpp"

namespace steppe::kernels::cuda {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

bool there_is_a_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

/// Memory on the device, not set: initcheck sees who reads it before it is written.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes + 1)); }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  unsigned char* data() const { return static_cast<unsigned char*>(data_); }
  void from(const void* host) { check(cudaMemcpy(data_, host, bytes_, cudaMemcpyHostToDevice)); }
  void to(void* host) const { check(cudaMemcpy(host, data_, bytes_, cudaMemcpyDeviceToHost)); }

 private:
  void* data_ = nullptr;
  size_t bytes_;
};

/// A layer's memory and its image on the device.
struct DeviceLayer {
  DeviceLayer(const Numbers& numbers, Destination where, int64_t offset, int64_t of_buffer)
      : host(numbers, where, offset, of_buffer), g(host.g.size()), w(host.w.size()), buffer(host.buffer.size()) {}

  DeviceMemory& out() {
    return host.destination == Destination::Buffer ? buffer : host.destination == Destination::Direction ? g : w;
  }
  void upload() {
    g.from(host.g.bytes());
    w.from(host.w.bytes());
    buffer.from(host.buffer.bytes());
  }
  void download() { out().to(host.out().bytes()); }

  LayerMemory host;
  DeviceMemory g, w, buffer;
};

class DeviceModel {
 public:
  /// Small samples, so that small layers have a window.
  DeviceModel(const std::vector<Numbers>& model, int64_t offset, int64_t chunk = kChunk, int64_t sample = 256)
      : model_(model), plan_(chunk, sample) {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    std::vector<Layer> layers;
    for (size_t i = 0; i < model.size(); ++i) {
      const auto where = static_cast<Destination>(i % static_cast<size_t>(Destination::kCount));
      memory_.push_back(std::make_unique<DeviceLayer>(model[i], where, offset, buffer_offset(offset, i)));
      DeviceLayer& memory = *memory_.back();
      Layer layer = model[i].layer;
      layer.direction = memory.g.data() + memory.host.g.begin();
      layer.weights = memory.w.data() + memory.host.w.begin();
      layer.out = memory.out().data() + memory.host.out().begin();
      layers.push_back(layer);
    }
    plan_.describe(layers);
    table_ = std::make_unique<DeviceMemory>(plan_.table().size());
    table_->from(plan_.table().data());
    // Tickets and histograms, which come first, are zero.
    scratch_ = std::make_unique<DeviceMemory>(static_cast<size_t>(scratch_bytes(plan_)));
    const auto* const states = work_of(plan_, table_->data(), scratch_->data(), Results()).states;
    check(cudaMemset(scratch_->data(), 0,
                     static_cast<size_t>(reinterpret_cast<const unsigned char*>(states) - scratch_->data())));
    numbers_ = std::make_unique<DeviceMemory>((4 + 3 * model.size()) * sizeof(double));
  }
  ~DeviceModel() { cudaStreamDestroy(stream_); }

  void reset() {
    for (size_t i = 0; i < model_.size(); ++i) {
      memory_[i]->host.g.assign(model_[i].g);
      memory_[i]->host.w.assign(model_[i].w);
      memory_[i]->upload();
    }
  }

  void enqueue() {
    auto* const numbers = reinterpret_cast<double*>(numbers_->data());
    const auto n = static_cast<int64_t>(model_.size());
    const Results results{numbers,     numbers + 1,     numbers + 2,        reinterpret_cast<bool*>(numbers + 3),
                          numbers + 4, numbers + 4 + n, numbers + 4 + 2 * n};
    const char* const error = steppe::kernels::cuda::ascend(plan_, table_->data(), scratch_->data(), results, stream_);
    if (error != nullptr) throw std::runtime_error(error);
  }

  Outcome outcome() {
    check(cudaStreamSynchronize(stream_));
    const size_t n = model_.size();
    std::vector<double> numbers(4 + 3 * n);
    numbers_->to(numbers.data());
    Outcome outcome;
    outcome.gradient_norm = numbers[0];
    outcome.perturbation_norm = numbers[1];
    outcome.kept_share = numbers[2];
    std::memcpy(&outcome.finite, &numbers[3], sizeof(bool));
    const auto from = numbers.begin() + 4;
    const auto step = static_cast<std::ptrdiff_t>(n);
    outcome.layer_gradient_norm.assign(from, from + step);
    outcome.layer_perturbation_norm.assign(from + step, from + 2 * step);
    outcome.layer_kept_share.assign(from + 2 * step, from + 3 * step);
    for (size_t i = 0; i < n; ++i) {
      if (model_[i].layer.rho > 0.0) memory_[i]->download();
      outcome.moved.push_back((model_[i].layer.rho > 0.0 ? memory_[i]->host.out() : memory_[i]->host.w).numbers());
      EXPECT_TRUE(memory_[i]->host.out().guards_are_whole()) << "layer " << i;
    }
    return outcome;
  }

  Outcome ascend() {
    reset();
    enqueue();
    return outcome();
  }

  cudaStream_t stream() const { return stream_; }

 private:
  std::vector<Numbers> model_;
  Plan plan_;
  cudaStream_t stream_ = nullptr;
  std::vector<std::unique_ptr<DeviceLayer>> memory_;
  std::unique_ptr<DeviceMemory> table_, scratch_, numbers_;
};

/// A few layers of many chunks beside small ones.
std::vector<Numbers> large_model(const Asked& asked, Format format) {
  std::vector<Numbers> model = random_model(asked, format, 31);
  Random random(32);
  for (const auto& [rows, row] : {std::tuple<int64_t, int64_t>{300, 1152}, {3, 50001}, {1, 200003}})
    model.push_back(
        layer_of(asked, format, rows, row, values_of(Values::Normal, rows * row, 0.01, random), random, 0.05));
  return model;
}

class CudaDevice : public testing::TestWithParam<std::tuple<Asked, Format>> {
 protected:
  void SetUp() override {
    if (!there_is_a_device()) GTEST_SKIP() << "needs a GPU";
  }
  const Asked& asked() const { return std::get<0>(GetParam()); }
  Format format() const { return std::get<1>(GetParam()); }
};

TEST_P(CudaDevice, AgreesWithTheDefinition_CUDA) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto model = random_model(asked(), format(), seed);
    const Outcome definition = ascend_by_definition(model);
    for (const int64_t offset : {0, 1, 3})
      for (const int64_t chunk : {int64_t{24}, kChunk})
        expect_agreement(DeviceModel(model, offset, chunk).ascend(), definition);
    if (HasFatalFailure()) return;
  }
}

TEST_P(CudaDevice, AgreesWithTheDefinitionOverManyChunks_CUDA) {
  const auto model = large_model(asked(), format());
  const Outcome definition = ascend_by_definition(model);
  DeviceModel ours(model, 0);
  const Outcome first = ours.ascend();
  expect_agreement(first, definition);
  for (int again = 0; again < 3; ++again) expect_same_bits(ours.ascend(), first);
}

TEST_P(CudaDevice, MovesNothingWhereAGradientIsNotFinite_CUDA) {
  for (const float poison : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    auto model = large_model(asked(), format());
    model.back().g[12345] = poison;
    const Outcome outcome = DeviceModel(model, 0).ascend();
    EXPECT_FALSE(outcome.finite);
    for (size_t k = 0; k < model.size(); ++k)
      for (size_t i = 0; i < model[k].w.size(); ++i) ASSERT_TRUE(same_bits(outcome.moved[k][i], model[k].w[i]));
  }
}

TEST_P(CudaDevice, AnAscentInAGraphGivesTheSameBits_CUDA) {
  const auto model = large_model(asked(), format());
  DeviceModel ours(model, 0);
  const Outcome expected = ours.ascend();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  EXPECT_FALSE(is_capturing(ours.stream()));
  check(cudaStreamBeginCapture(ours.stream(), cudaStreamCaptureModeGlobal));
  EXPECT_TRUE(is_capturing(ours.stream()));
  ours.enqueue();
  check(cudaStreamEndCapture(ours.stream(), &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  for (int again = 0; again < 3; ++again) {
    ours.reset();
    check(cudaGraphLaunch(executable, ours.stream()));
    expect_same_bits(ours.outcome(), expected);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

std::string name_of_case(const testing::TestParamInfo<std::tuple<Asked, Format>>& each) {
  return std::get<0>(each.param).name + "_" + name_of(std::get<1>(each.param));
}

INSTANTIATE_TEST_SUITE_P(Every, CudaDevice,
                         testing::Combine(testing::ValuesIn(every_recipe()),
                                          testing::Values(Format::Float32, Format::BFloat16, Format::Half)),
                         name_of_case);

}  // namespace
}  // namespace steppe::kernels::cuda
