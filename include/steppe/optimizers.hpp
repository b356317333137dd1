// The optimizers of the papers, each a composition.
// SPDX-License-Identifier: MIT
#pragma once

#include <steppe/ascent/adaptive_scale.hpp>
#include <steppe/ascent/centralize.hpp>
#include <steppe/ascent/chain.hpp>
#include <steppe/ascent/fisher_mask.hpp>
#include <steppe/ascent/friendly.hpp>
#include <steppe/ascent/gradient.hpp>
#include <steppe/ascent/last_gradient.hpp>
#include <steppe/ascent/momentum.hpp>
#include <steppe/ascent/variance_suppressed.hpp>
#include <steppe/ascent/z_score_filter.hpp>
#include <steppe/descent/centralize.hpp>
#include <steppe/descent/extrapolated.hpp>
#include <steppe/descent/perturbed_gradient.hpp>
#include <steppe/descent/rescaled.hpp>
#include <steppe/descent/reuse.hpp>
#include <steppe/descent/surrogate_gap.hpp>
#include <steppe/descent/weighted.hpp>
#include <steppe/policy/adaptive.hpp>
#include <steppe/policy/every_step.hpp>
#include <steppe/policy/tail.hpp>
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

/// SAM in the late phase of training (arXiv 2410.10373): policy().total(steps).share(0.3); 1 + share gradients a step.
template <class Base>
using Tail = SharpnessAware<Base, ascent::Gradient, descent::PerturbedGradient, policy::Tail>;

/// Momentum-SAM (arXiv 2401.12033): the only pass of a step is made at w - rho v / N(v), v the base's momentum; rho 3.
template <class Base>
using MSAM = SharpnessAware<Base, ascent::Momentum>;

/// LookSAM (arXiv 2203.02714): every 5th step is SAM's and keeps the part of g+ orthogonal to g, which the other steps
/// add.
template <class Base>
using LookSAM = SharpnessAware<Base, ascent::Gradient, descent::Reuse>;

/// Adaptive-policy SAM (arXiv 2304.14647): SAM where the gradient is large compared with recent ones;
/// policy().total(steps).
template <class Base>
using AESAM = SharpnessAware<Base, ascent::Gradient, descent::PerturbedGradient, policy::Adaptive>;

/// AE-SAM whose plain steps reuse the last correction, as LookSAM's do (arXiv 2304.14647).
template <class Base>
using AELookSAM = SharpnessAware<Base, ascent::Gradient, descent::Reuse, policy::Adaptive>;

/// S2-SAM (NeurIPS 2024): the only pass of a step is made at w + e, e along the gradient of the step before; rho 0.05.
template <class Base>
using S2SAM = SharpnessAware<Base, ascent::LastGradient>;

/// Friendly SAM (arXiv 2403.12350): e along g minus an average of earlier gradients.
template <class Base>
using FriendlySAM = SharpnessAware<Base, ascent::Friendly>;

/// VaSSO (arXiv 2309.15639): e along a moving average of gradients.
template <class Base>
using VaSSO = SharpnessAware<Base, ascent::VarianceSuppressed>;

/// Sparse SAM (arXiv 2210.05177): only the components of highest Fisher information are perturbed.
template <class Base>
using SSAM = SharpnessAware<Base, ascent::FisherMask>;

/// Surrogate-gap SAM (arXiv 2203.08065): g+ minus alpha times the part of g orthogonal to it.
template <class Base>
using GSAM = SharpnessAware<Base, ascent::Gradient, descent::SurrogateGap>;

/// Weighted SAM (arXiv 2305.15817): the loss plus gamma / (1 - gamma) times the sharpness, decoupled by default.
template <class Base>
using WSAM = SharpnessAware<Base, ascent::Gradient, descent::Weighted>;

/// Stable-SAM (arXiv 2401.07250): g+ with the length of g.
template <class Base>
using StableSAM = SharpnessAware<Base, ascent::Gradient, descent::Rescaled>;

/// XSAM (arXiv 2603.10048): a direction beyond g+, found by the losses along it; rho 0.15.
template <class Base>
using XSAM = SharpnessAware<Base, ascent::Gradient, descent::Extrapolated>;

/// Deviation-aware scaling (arXiv 2508.10435): rescales the cores of tensorized layers as SAM would, from one gradient.
template <class Base>
using DAS = DeviationAwareScaling<Base>;

STEPPE_NAMESPACE_END
