// The library steppe::compiled: what no template needs, once. Programs over it are compiled with STEPPE_COMPILED.
// SPDX-License-Identifier: MIT
#ifndef STEPPE_COMPILED
#define STEPPE_COMPILED
#endif
#if defined(STEPPE_WITH_CUDA) && !defined(STEPPE_COMPILED_WITH_CUDA)
#define STEPPE_COMPILED_WITH_CUDA
#endif

#include <steppe/kernels/dispatch.ipp>
#include <steppe/kernels/dispatch_combination.ipp>
#include <steppe/kernels/dispatch_update.ipp>
#include <steppe/perturbation.ipp>
#include <steppe/step/checkpoint.ipp>
#include <steppe/step/optimizer_checkpoint.ipp>
#include <steppe/step/parameter_check.ipp>
#include <steppe/step/recorder.ipp>
#include <steppe/step/reduction.ipp>
#include <steppe/step/step_plan.ipp>
#include <steppe/step/two_pass.ipp>
#include <steppe/tensorized/norm_deviation.ipp>
