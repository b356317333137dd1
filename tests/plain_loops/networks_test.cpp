// Programs with one network: what its layers require of a step without a closure.
// SPDX-License-Identifier: MIT
#include <ATen/autocast_mode.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>
#include <steppe/optimizers.hpp>
#include <torch/nn/functional/activation.h>
#include <torch/nn/modules/activation.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/conv.h>
#include <torch/nn/modules/dropout.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/modules/rnn.h>
#include <torch/nn/modules/transformercoder.h>
#include <torch/nn/modules/transformerlayer.h>
#include <torch/nn/utils/rnn.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>
#include <torch/version.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "loop.hpp"

namespace steppe::plain_loops {
namespace {

using torch::optim::AdamW;
using torch::optim::AdamWOptions;
using torch::optim::OptimizerParamGroup;
using torch::optim::SGD;
using torch::optim::SGDOptions;

// Images.

class Classifier : public torch::nn::Module {
 public:
  Classifier() {
    first = register_module("first", torch::nn::Conv2d(torch::nn::Conv2dOptions(3, 6, 3).padding(1).bias(false)));
    norm = register_module("norm", torch::nn::BatchNorm2d(6));
    second = register_module("second", torch::nn::Conv2d(torch::nn::Conv2dOptions(6, 8, 3).padding(1)));
    channels = register_module("channels", torch::nn::Dropout2d(0.2));
    units = register_module("units", torch::nn::Dropout(torch::nn::DropoutOptions(0.4).inplace(true)));
    head = register_module("head", torch::nn::Linear(8 * 4, 5));
  }

  at::Tensor forward(at::Tensor x) {
    x = norm(first(x));
    torch::relu_(x);
    x = channels(torch::max_pool2d(x, 2));
    if (noisy) x = x + 0.05 * torch::randn(x.sizes()) + 0.05 * torch::randn_like(x);
    x = torch::nn::functional::leaky_relu(second(x), torch::nn::functional::LeakyReLUFuncOptions().inplace(true));
    x = units(torch::max_pool2d(x, 2).flatten(1));
    return head(x);
  }

  bool noisy = false;
  torch::nn::Conv2d first{nullptr}, second{nullptr};
  torch::nn::BatchNorm2d norm{nullptr};
  torch::nn::Dropout2d channels{nullptr};
  torch::nn::Dropout units{nullptr};
  torch::nn::Linear head{nullptr};
};

/// Flipped, moved and with noise, all by chance.
at::Tensor augmented(const at::Tensor& images) {
  at::Tensor x = images.clone();
  if (torch::rand({1}).item<float>() < 0.5F) x = x.flip(3);
  x = x.roll(torch::randint(0, 3, {1}, at::kLong).item<int64_t>(), 2);
  x.add_(torch::randn_like(x), 0.1);
  const at::Tensor keep = torch::rand({x.size(0), 1, x.size(2), x.size(3)}) > 0.1;
  return x.mul_(keep);
}

template <class Prepare, class Pass>
Trace train_classifier(Way way, const Prepare& prepare, const Pass& pass) {
  Classifier model;
  SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9).weight_decay(1e-3));
  const at::Tensor images = torch::randn({20, 3, 8, 8}), labels = torch::randint(5, {20}, at::kLong);
  Trace trace;
  int64_t correct = 0;
  for (int i = 0; i < kSteps; ++i) {
    const at::Tensor chosen = torch::randperm(20).slice(0, 0, 6);
    const at::Tensor target = labels.index_select(0, chosen);
    const at::Tensor data = prepare(images.index_select(0, chosen));
    const at::Tensor loss = step(way, optimizer, [&] { return pass(model, data, target, correct); });
    trace.add(loss, optimizer.report());
  }
  trace.add(model);
  return trace;
}

at::Tensor classify(Classifier& model, const at::Tensor& data, const at::Tensor& target, int64_t& correct) {
  const at::Tensor output = model.forward(data);
  at::Tensor loss = torch::cross_entropy_loss(output, target);
  correct += output.argmax(1).eq(target).sum().item<int64_t>();
  loss.backward();
  return loss;
}

TEST(PlainLoop, OfAnImageClassifierIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) { return train_classifier(way, augmented, classify); });
}

TEST(PlainLoop, MayAugmentItsImagesBetweenZeroGradAndTheForwardPass) {
  expect_same_in_both_ways([](Way way) {
    return train_classifier(
        way, [](const at::Tensor& data) { return data; },
        [](Classifier& model, const at::Tensor& data, const at::Tensor& target, int64_t& correct) {
          return classify(model, augmented(data), target, correct);
        });
  });
}

TEST(PlainLoop, MayDrawRandomNumbersAnywhereInTheForwardPass) {
  expect_same_in_both_ways([](Way way) {
    return train_classifier(way, augmented,
                            [](Classifier& model, const at::Tensor& data, const at::Tensor& target, int64_t& correct) {
                              model.noisy = true;
                              return classify(model, data, target, correct);
                            });
  });
}

TEST(PlainLoop, MixesImagesAndTheirLabels) {
  expect_same_in_both_ways([](Way way) {
    return train_classifier(
        way, augmented, [](Classifier& model, const at::Tensor& data, const at::Tensor& target, int64_t&) {
          const at::Tensor share = torch::rand({1}), others = torch::randperm(data.size(0));
          const at::Tensor output = model.forward(data * share + data.index_select(0, others) * (1 - share));
          at::Tensor loss = share.squeeze() * torch::cross_entropy_loss(output, target) +
                            (1 - share.squeeze()) * torch::cross_entropy_loss(output, target.index_select(0, others));
          loss.backward();
          return loss;
        });
  });
}

TEST(PlainLoop, FineTunesWithAFrozenPartAndTwoParameterGroups) {
  for (const bool all_given : {false, true}) {  // whether the optimizer is given what is frozen, too
    expect_same_in_both_ways([&](Way way) {
      Classifier model;
      for (at::Tensor& param : model.first->parameters()) param.requires_grad_(false);
      for (at::Tensor& param : model.norm->parameters()) param.requires_grad_(false);
      model.norm->eval();
      std::vector<at::Tensor> body = model.second->parameters();
      if (all_given)
        for (const at::Tensor& param : model.first->parameters()) body.push_back(param);
      std::vector<OptimizerParamGroup> groups;
      groups.emplace_back(body, std::make_unique<SGDOptions>(SGDOptions(0.01).momentum(0.9)));
      groups.emplace_back(model.head->parameters(), std::make_unique<SGDOptions>(SGDOptions(0.1).momentum(0.9)));
      SAM<SGD> optimizer(groups, SGDOptions(0.1), Options().rho(0.1));
      optimizer.attach(model);
      Trace trace;
      int64_t correct = 0;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor data = torch::randn({6, 3, 8, 8}), target = torch::randint(5, {6}, at::kLong);
        if (i == 3) optimizer.options(0).rho(0.0);
        const at::Tensor loss = step(way, optimizer, [&] { return classify(model, data, target, correct); });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

// Language.

class LanguageModel : public torch::nn::Module {
 public:
  using State = std::tuple<at::Tensor, at::Tensor>;

  LanguageModel() {
    embedding = register_module("embedding", torch::nn::Embedding(11, 8));
    lstm = register_module("lstm", torch::nn::LSTM(torch::nn::LSTMOptions(8, 8).num_layers(2).dropout(0.3)));
    bias = register_parameter("bias", torch::zeros({11}));
  }

  /// The output layer has the embedding's weight.
  at::Tensor forward(const at::Tensor& words, State& state) {
    at::Tensor output;
    std::tie(output, state) = lstm(embedding(words), state);
    return torch::linear(output, embedding->weight, bias);
  }

  torch::nn::Embedding embedding{nullptr};
  torch::nn::LSTM lstm{nullptr};
  at::Tensor bias;
};

TEST(PlainLoop, CarriesTheStateOfARecurrentNetFromOneStepToTheNext) {
  expect_same_in_both_ways([](Way way) {
    LanguageModel model;
    SAM<SGD> optimizer(model, SGDOptions(0.5).momentum(0.9));
    const at::Tensor text = torch::randint(11, {6 * 4 + 1, 3}, at::kLong);
    LanguageModel::State carried{torch::zeros({2, 3, 8}), torch::zeros({2, 3, 8})};
    Trace trace;
    for (int i = 0; i < 6; ++i) {
      const at::Tensor words = text.slice(0, 4 * i, 4 * i + 4), next = text.slice(0, 4 * i + 1, 4 * i + 5);
      const LanguageModel::State before = carried;
      int calls = 0;
      const at::Tensor loss = step(way, optimizer, [&] {
        LanguageModel::State state{std::get<0>(before).detach(), std::get<1>(before).detach()};
        at::Tensor value = torch::cross_entropy_loss(model.forward(words, state).flatten(0, 1), next.flatten());
        value.backward();
        if (calls++ == 0) carried = state;
        return value;
      });
      trace.add(loss, optimizer.report());
      trace.add("state", std::get<0>(carried));
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, OfAnEmbeddingWithSparseGradientsIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) {
    torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(20, 5).sparse(true));
    torch::nn::Linear head(5, 3);
    std::vector<at::Tensor> params = embedding->parameters();
    for (const at::Tensor& param : head->parameters()) params.push_back(param);
    SAM<SGD> optimizer(params, SGDOptions(0.3), Options().rho(0.1));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor words = torch::randint(20, {6, 4}, at::kLong), target = torch::randint(3, {6}, at::kLong);
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor value = torch::cross_entropy_loss(head(embedding(words).mean(1)), target);
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(*embedding);
    trace.add(*head);
    return trace;
  });
}

TEST(PlainLoop, OfAnEmbeddingThatIsKeptShortIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) {
    torch::nn::Embedding embedding(torch::nn::EmbeddingOptions(20, 5).max_norm(1.0));
    SAM<SGD> optimizer(embedding->parameters(), SGDOptions(0.3), Options().rho(0.1));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor words = torch::randint(20, {6, 4}, at::kLong);
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor value = embedding(words).pow(3).sum();
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(*embedding);
    return trace;
  });
}

TEST(PlainLoop, OfAnLstmOverPackedSequencesIsThatWithAClosure) {
  namespace rnn = torch::nn::utils::rnn;
  expect_same_in_both_ways([](Way way) {
    torch::nn::LSTM lstm(torch::nn::LSTMOptions(4, 6).num_layers(2).bidirectional(true).batch_first(true).dropout(0.2));
    torch::nn::Linear head(12, 3);
    std::vector<at::Tensor> params = lstm->parameters();
    for (const at::Tensor& param : head->parameters()) params.push_back(param);
    SAM<AdamW> optimizer(params, AdamWOptions(0.02));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor data = torch::randn({4, 7, 4}), target = torch::randint(3, {4}, at::kLong);
      const at::Tensor lengths = torch::randint(2, 8, {4}, at::kLong);
      const at::Tensor loss = step(way, optimizer, [&] {
        const auto packed = rnn::pack_padded_sequence(data, lengths, /*batch_first=*/true, /*enforce_sorted=*/false);
        const auto output = std::get<0>(lstm->forward_with_packed_input(packed));
        const at::Tensor padded = std::get<0>(rnn::pad_packed_sequence(output, /*batch_first=*/true));
        const at::Tensor mean = padded.sum(1) / lengths.unsqueeze(1);
        at::Tensor value = torch::cross_entropy_loss(head(mean), target);
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(*lstm);
    trace.add(*head);
    return trace;
  });
}

class Encoder : public torch::nn::Module {
 public:
  Encoder() {
    embedding = register_module("embedding", torch::nn::Embedding(13, 8));
    place = register_parameter("place", torch::randn({10, 1, 8}) * 0.1);
    encoder = register_module(
        "encoder", torch::nn::TransformerEncoder(torch::nn::TransformerEncoderOptions(
                       torch::nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).dropout(0.1), 2)));
    head = register_module("head", torch::nn::Linear(8, 13));
  }

  at::Tensor forward(const at::Tensor& words, const at::Tensor& is_padding) {
    const int64_t length = words.size(0);
    const at::Tensor later = torch::ones({length, length}, at::kBool).triu(1);
    const at::Tensor mask = torch::zeros({length, length}).masked_fill_(later, -1e9);
    const at::Tensor x = embedding(words) + place.slice(0, 0, length);
    return head(encoder(x, mask, is_padding));
  }

  torch::nn::Embedding embedding{nullptr};
  at::Tensor place;
  torch::nn::TransformerEncoder encoder{nullptr};
  torch::nn::Linear head{nullptr};
};

TEST(PlainLoop, OfATransformerWithMasksIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) {
    Encoder model;
    SAM<AdamW> optimizer(model, AdamWOptions(0.01), Options().rho(0.1));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const int64_t length = 6 + i;  // shapes may change from step to step
      const at::Tensor words = torch::randint(13, {length, 4}, at::kLong);
      at::Tensor is_padding = torch::zeros({4, length}, at::kBool);
      is_padding.index_put_({torch::tensor({1}), torch::tensor({length - 1})}, true);
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor output = model.forward(words.slice(0, 0, length), is_padding);
        at::Tensor value = torch::cross_entropy_loss(output.flatten(0, 1), words.roll(-1, 0).flatten());
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

// Latent variables and masked data.

TEST(PlainLoop, OfAVariationalAutoencoderIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) {
    torch::nn::Linear encoder(10, 8), mean(8, 3), spread(8, 3), decoder(3, 10);
    std::vector<at::Tensor> params;
    for (const auto& layer : {encoder, mean, spread, decoder})
      for (const at::Tensor& param : layer->parameters()) params.push_back(param);
    SAM<torch::optim::Adam> optimizer(params, torch::optim::AdamOptions(0.01));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor data = torch::rand({7, 10});
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor hidden = torch::relu(encoder(data));
        const at::Tensor mu = mean(hidden), log_variance = spread(hidden);
        const at::Tensor deviation = torch::exp(0.5 * log_variance);
        const at::Tensor latent = mu + torch::randn_like(deviation) * deviation;
        const at::Tensor likelihood =
            torch::binary_cross_entropy_with_logits(decoder(latent), data, {}, {}, at::Reduction::Sum);
        const at::Tensor divergence = -0.5 * (1 + log_variance - mu.pow(2) - log_variance.exp()).sum();
        at::Tensor value = likelihood + divergence;
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    for (const at::Tensor& param : params) trace.add("parameter", param);
    return trace;
  });
}

TEST(PlainLoop, PutsALearnedTokenWhereDataAreMasked) {
  expect_same_in_both_ways([](Way way) {
    torch::nn::Linear model(4, 4);
    const at::Tensor token = torch::randn({4}).requires_grad_();
    std::vector<at::Tensor> params = model->parameters();
    params.push_back(token);
    SAM<SGD> optimizer(params, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor data = torch::randn({5, 6, 4});
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor masked = torch::rand({5, 6}) < 0.4;
        at::Tensor tokens = data.clone();
        tokens.index_put_({masked}, token);
        at::Tensor value = (model(tokens) - data).square().mean();
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    for (const at::Tensor& param : params) trace.add("parameter", param);
    return trace;
  });
}

TEST(PlainLoop, FillsATensorOfTheStepSliceBySlice) {
  for (const int kind : {0, 1, 2, 3}) {
    expect_same_in_both_ways([&](Way way) {
      Net model;
      SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor data = torch::randn({4, 5, 6}), target = torch::randn({4, 5, 3});
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor all = kind == 2 ? torch::empty({4, 5, 3}) : torch::zeros({4, 5, 3});
          if (kind == 3) all.fill_(1.0).select(0, 0).mul_(2.0);
          for (int64_t t = 0; t < 4; ++t) {
            const at::Tensor output = model.forward(data.select(0, t));
            if (kind == 1)
              all.index_put_({torch::tensor({t})}, output.unsqueeze(0));
            else if (kind == 3)
              all.select(0, t).add_(output);
            else
              all.select(0, t).copy_(output);
          }
          at::Tensor value = (all - target).square().mean();
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

TEST(PlainLoop, OfAStraightThroughEstimatorIsThatWithAClosure) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor scaled = model.norm(model.first(batch.inputs)) * 4;
        const at::Tensor rounded = scaled + (torch::round(scaled) - scaled).detach();
        at::Tensor value = torch::cross_entropy_loss(model.second(model.drop(rounded / 4)), batch.targets);
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

/// A layer whose weight is divided by its largest singular value, which a buffer follows.
class SpectralLinear : public torch::nn::Module {
 public:
  SpectralLinear(int64_t in, int64_t out) {
    weight = register_parameter("weight", torch::randn({out, in}));
    left = register_buffer("left", torch::randn({out}));
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor right;
    {
      const c10::NoGradGuard no_grad;
      right = torch::mv(weight.t(), left);
      right = right / right.norm();
      const at::Tensor next = torch::mv(weight, right);
      left.copy_(next / next.norm());
    }
    const at::Tensor largest = torch::dot(left.clone(), torch::mv(weight, right));
    return torch::linear(x, weight / largest);
  }

  at::Tensor weight, left;
};

TEST(PlainLoop, FollowsTheLargestSingularValueOfAWeight) {
  expect_same_in_both_ways([](Way way) {
    SpectralLinear model(6, 3);
    SAM<SGD> optimizer(model, SGDOptions(0.3).momentum(0.9), Options().rho(0.3));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor value = torch::cross_entropy_loss(model.forward(batch.inputs), batch.targets);
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

TEST(PlainLoop, TakesOperatorsWithArgumentsOfEveryKind) {
  using torch::indexing::Slice;
  expect_same_in_both_ways([](Way way) {
    const at::Tensor weight = torch::randn({6, 8}).requires_grad_(), scale = torch::rand({8}).requires_grad_();
    SAM<SGD> optimizer(std::vector<at::Tensor>{weight, scale}, SGDOptions(0.01).momentum(0.9), Options().rho(0.3));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor data = torch::randn({5, 6}), mask = torch::rand({5, 8}) < 0.2;
      const at::Tensor rows = torch::randperm(5), columns = torch::randint(8, {5, 3}, at::kLong);
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor x = torch::einsum("bi,io->bo", {data, weight});
        x.select(1, 0).mul_(2);                        // a view that is written to
        x.index_put_({mask}, x.index({mask}).tanh());  // an optional list of tensors, read and written
        x = x.masked_fill(mask.roll(1, 0), 0.5) * torch::softplus(scale);
        const auto [best, where] = x.topk(3, 1);  // two results, one of them without a gradient
        const std::vector<at::Tensor> parts = x.chunk(2, 1);
        x = torch::cat({parts[1], parts[0], best}, 1);
        const at::Tensor moved = x.index({rows, Slice(0, 4)}).transpose(0, 1).reshape({-1});
        const at::Tensor spread = torch::zeros_like(x).scatter_add(1, where, best);
        at::Tensor gathered = x.gather(1, columns);
        gathered.index({Slice(), 1}).zero_();
        const at::Tensor spectrum = torch::fft_rfft(moved).abs().square().mean();
        const at::Tensor chosen = torch::where(gathered > 0, gathered, gathered * x.mean().item<float>() * 0);
        at::Tensor value = spectrum + spread.var() + chosen.flatten().logsumexp(0) + x.cumsum(1).square().mean() +
                           std::get<0>(x.sort(1, true)).select(1, 0).norm() +
                           (x.unsqueeze(0) - x.unsqueeze(1)).square().sum(-1).add(1e-3).sqrt().mean();
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add("weight", weight);
    trace.add("scale", scale);
    return trace;
  });
}

TEST(PlainLoop, HasTheSameBitsInFloat64AndWithComplexWeights) {
  for (const at::ScalarType dtype : {at::kDouble, at::kComplexFloat}) {
    expect_same_in_both_ways([&](Way way) {
      const at::Tensor weight = torch::randn({6, 4}, dtype).requires_grad_();
      SAM<SGD> optimizer(std::vector<at::Tensor>{weight}, SGDOptions(0.05), Options().rho(0.3));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor data = torch::randn({5, 6}, dtype);
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor value = torch::matmul(data, weight).tanh().abs().square().mean();
          value.backward();
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add("weight", weight);
      return trace;
    });
  }
}

TEST(PlainLoop, MayCutItsGraphAtALeafOfItsOwn) {
  expect_same_in_both_ways([](Way way) {
    Net model;
    SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9), Options().rho(0.2));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const Batch batch = Batch::draw();
      const at::Tensor loss = step(way, optimizer, [&] {
        const at::Tensor hidden = model.norm(model.first(batch.inputs));
        const at::Tensor cut = hidden.detach().requires_grad_();  // its gradient is only read
        at::Tensor value = torch::cross_entropy_loss(model.second(cut), batch.targets) + hidden.square().mean();
        value.backward();
        EXPECT_TRUE(cut.grad().defined());
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

// Mixed precision.

/// Within its scope operators on the CPU are cast to bfloat16.
class Bfloat16 {
 public:
  Bfloat16() {
    set(true);
    at::autocast::increment_nesting();
  }
  ~Bfloat16() {
    set(false);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  }
  Bfloat16(const Bfloat16&) = delete;
  Bfloat16& operator=(const Bfloat16&) = delete;

 private:
  static void set(bool on) {
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 4)
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, on);
#else
    at::autocast::set_autocast_cpu_dtype(at::kBFloat16);
    at::autocast::set_cpu_enabled(on);
#endif
  }
};

TEST(PlainLoop, RepeatsTheCastsOfARegionAroundTheForwardPass) {
  for (const bool whole : {false, true}) {  // whether the loss and the backward pass are in the region, too
    expect_same_in_both_ways([&](Way way) {
      Classifier model;
      SAM<SGD> optimizer(model, SGDOptions(0.1).momentum(0.9));
      Trace trace;
      for (int i = 0; i < kSteps; ++i) {
        const at::Tensor data = torch::randn({6, 3, 8, 8}), target = torch::randint(5, {6}, at::kLong);
        const at::Tensor loss = step(way, optimizer, [&] {
          at::Tensor output, value;
          {
            const Bfloat16 region;
            output = model.forward(data);
            EXPECT_EQ(output.scalar_type(), at::kBFloat16);
            if (whole) {
              value = torch::cross_entropy_loss(output, target);
              value.backward();
            }
          }
          if (!whole) {
            value = torch::cross_entropy_loss(output.to(at::kFloat), target);
            value.backward();
          }
          return value;
        });
        trace.add(loss, optimizer.report());
      }
      trace.add(model);
      return trace;
    });
  }
}

TEST(PlainLoop, RepeatsTheCastsOfAWeightThatIsUsedTwice) {
  expect_same_in_both_ways([](Way way) {
    const at::Tensor weight = (torch::randn({8, 8}) * 0.4).requires_grad_();
    SAM<SGD> optimizer(std::vector<at::Tensor>{weight}, SGDOptions(0.5).momentum(0.9), Options().rho(0.3));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor data = torch::randn({6, 8});
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor output;
        {
          const Bfloat16 region;
          output = torch::matmul(torch::matmul(data, weight).tanh(), weight.t());
        }
        const at::Tensor after = torch::matmul(output.to(at::kFloat), weight);  // in float32
        at::Tensor value = (output.to(at::kFloat) - data).square().mean() + 0.1 * after.square().mean();
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
      trace.add("weight", weight);
    }
    return trace;
  });
}

TEST(PlainLoop, RepeatsTheCastsOfATiedEmbedding) {
  expect_same_in_both_ways([](Way way) {
    LanguageModel model;
    SAM<SGD> optimizer(model, SGDOptions(0.5).momentum(0.9), Options().rho(0.3));
    Trace trace;
    for (int i = 0; i < kSteps; ++i) {
      const at::Tensor words = torch::randint(11, {5, 3}, at::kLong);
      const at::Tensor loss = step(way, optimizer, [&] {
        at::Tensor output;
        {
          const Bfloat16 region;
          const at::Tensor embedded = model.embedding(words);
          const at::Tensor hidden = torch::matmul(embedded, model.embedding->weight.t()).relu();
          output = torch::matmul(torch::matmul(hidden, model.embedding->weight), model.embedding->weight.t());
        }
        at::Tensor value =
            torch::cross_entropy_loss((output + model.bias).flatten(0, 1).to(at::kFloat), words.roll(-1, 0).flatten());
        value.backward();
        return value;
      });
      trace.add(loss, optimizer.report());
    }
    trace.add(model);
    return trace;
  });
}

}  // namespace
}  // namespace steppe::plain_loops
