// The optimizers of the papers, each a composition.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/ascent/adaptive_scale.hpp>
#include <steppe/ascent/centralize.hpp>
#include <steppe/ascent/chain.hpp>
#include <steppe/ascent/gradient.hpp>
#include <steppe/ascent/z_score_filter.hpp>
#include <steppe/descent/centralize.hpp>
#include <steppe/descent/perturbed_gradient.hpp>
#include <steppe/sharpness_aware.hpp>
#include <steppe/tensorized/deviation_aware_scaling.hpp>
#include <steppe/version.hpp>

STEPPE_NAMESPACE_BEGIN

/// Sharpness-aware minimization (arXiv 2010.01412): e = rho * g / N(g), rho 0.05.
template <class Base>
using SAM = SharpnessAware<Base, ascent::Gradient>;

/// Adaptive SAM (arXiv 2102.11600): e = rho * T^2 g / N(T g), rho 0.5; AdaptiveScale::davda54() for the other
/// convention.
template <class Base>
using ASAM = SharpnessAware<Base, ascent::AdaptiveScale>;

/// Z-score filtered SAM (arXiv 2505.02369): e = rho * f / N(f), f the tail of each layer's gradient; rho 0.05, top 5 %.
template <class Base>
using ZSharp = SharpnessAware<Base, ascent::ZScoreFilter>;

/// Gradient-centralized SAM (arXiv 2501.11584): e = rho * c / N(c), c centralized per output row; rho 0.05.
template <class Base>
using GCSAM = SharpnessAware<Base, ascent::Centralize, descent::Centralize>;

/// Deviation-aware scaling (arXiv 2508.10435): rescales the cores of tensorized layers as SAM would, from one gradient.
template <class Base>
using DAS = DeviationAwareScaling<Base>;

STEPPE_NAMESPACE_END
