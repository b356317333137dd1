// Places in the program as lines of its source.
// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace steppe::races {

/// What addr2line gives for an address: a line, then those that it is inlined at. The stand-in's own are left out.
inline std::string lines_of(std::istream& answer) {
  std::string lines;
  bool is_inside = true;
  for (std::string line; answer.peek() != '0' && std::getline(answer, line);) {
    const std::string inlined = " (inlined by) ";
    if (line.rfind(inlined, 0) == 0) line = line.substr(inlined.size());
    const bool is_kernel = line.rfind("watched_launch.hpp:", 0) != 0;
    is_inside = is_inside && (is_kernel || lines.empty());
    if (is_inside && is_kernel) lines += (lines.empty() ? "" : " in ") + line.substr(0, line.find(' '));
  }
  return lines;
}

/// The lines at places that calls return to; only addresses where binutils are not installed.
inline std::map<uint32_t, std::string> lines_at(const std::set<uint32_t>& places) {
  std::string program(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", program.data(), program.size());
  program.resize(length > 0 ? static_cast<size_t>(length) : 0);
  std::ostringstream command;
  command << "addr2line -apis -e '" << program << "'" << std::hex;
  for (const uint32_t place : places) command << " 0x" << place - 1;
  command << " 2>/dev/null";

  std::string text;
  if (FILE* const pipe = popen(command.str().c_str(), "r")) {
    for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) text += static_cast<char>(c);
    pclose(pipe);
  }
  std::istringstream answer(text);
  std::map<uint32_t, std::string> lines;
  for (const uint32_t place : places) {
    std::string address;
    std::getline(answer, address, ' ');  // "0x0000000000405b2e: reduction.hpp:41"
    std::ostringstream number;
    number << "0x" << std::hex << place;
    const std::string found = lines_of(answer);
    lines[place] = found.empty() ? number.str() : found;
  }
  return lines;
}

}  // namespace steppe::races
