// The message of what a call throws; empty if it throws nothing.
// SPDX-License-Identifier: MIT
#pragma once

#include <exception>
#include <string>

template <class Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}
