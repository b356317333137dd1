// Every public header of the library.
// SPDX-License-Identifier: MIT
#pragma once

/// @namespace steppe
/// Sharpness-aware optimizers for LibTorch. Optimizers are templates over a base optimizer and derive from it.

#include <steppe/base/fused.hpp>
#include <steppe/optimizers.hpp>
#include <steppe/parameter_roles.hpp>
#include <steppe/perturbation.hpp>
#include <steppe/placement.hpp>
#include <steppe/schedule.hpp>
#include <steppe/sharpness/ball.hpp>
#include <steppe/sharpness/eigenvalues.hpp>
#include <steppe/sharpness/hessian.hpp>
#include <steppe/sharpness/landscape.hpp>
#include <steppe/sharpness/loss_surface.hpp>
#include <steppe/sharpness/spectral_density.hpp>
#include <steppe/sharpness_aware.hpp>
#include <steppe/shift/optimizer_state.hpp>
#include <steppe/shift/optimum_shift.hpp>
#include <steppe/shift/optimum_shifter.hpp>
#include <steppe/step/gradient_exchange.hpp>
#include <steppe/step/two_pass.hpp>
#include <steppe/tensorized/cp.hpp>
#include <steppe/tensorized/low_rank_adapter.hpp>
#include <steppe/tensorized/norm_deviation.hpp>
#include <steppe/tensorized/tensor_ring.hpp>
#include <steppe/tensorized/tensor_train.hpp>
#include <steppe/tensorized/tensorized_conv2d.hpp>
#include <steppe/tensorized/tensorized_linear.hpp>
#include <steppe/tensorized/tucker.hpp>
#include <steppe/training/autocast.hpp>
#include <steppe/training/averaged_weights.hpp>
#include <steppe/training/grad_scaler.hpp>
#include <steppe/training/learning_rate.hpp>
#include <steppe/version.hpp>
