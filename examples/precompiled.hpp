// What most of the examples include.
// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>
#include <CLI/CLI.hpp>
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/serialize.h>
