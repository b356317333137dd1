// SPDX-License-Identifier: MIT
#include "presentation/progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#ifndef _WIN32
#include <sys/ioctl.h>
#include <unistd.h>
#endif

#include "presentation/clock.hpp"
#include "presentation/formatted.hpp"

namespace presentation {
namespace {

constexpr double kBarEvery = 0.1, kLineEvery = 15.0;  // seconds

bool is_terminal(std::FILE* out) {
#ifdef _WIN32
  (void)out;
  return false;
#else
  return isatty(fileno(out)) != 0;
#endif
}

}  // namespace

std::string duration(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (whole < 60) return formatted("%lld s", whole);
  if (whole < 3600) return formatted("%lld:%02lld min", whole / 60, whole % 60);
  return formatted("%lld:%02lld h", whole / 3600, whole % 3600 / 60);
}

std::string progress_line(const ProgressState& state, size_t width, bool with_bar) {
  const std::string head = state.label + "  ";
  const std::string tail = (state.numbers.empty() ? "" : state.numbers + "  ") + duration(state.seconds_left) + " left";
  std::string bar;
  if (with_bar && head.size() + tail.size() + 10 < width) {
    const size_t room = std::min<size_t>(width - head.size() - tail.size() - 5, 30);
    const auto filled = static_cast<size_t>(std::clamp(state.share, 0.0, 1.0) * static_cast<double>(room));
    bar.append(1, '[').append(filled, '=').append(room - filled, ' ').append("]  ");
  }
  return (head + bar + tail).substr(0, width);
}

Progress::Progress(std::FILE* out, double work)
    : out_(out), terminal_(is_terminal(out)), work_(work), start_(seconds_now()), shown_(start_) {}

double Progress::seconds_left() const {
  if (done_ <= 0.0) return 0.0;
  return (seconds_now() - start_) / done_ * std::max(work_ - done_, 0.0);
}

bool Progress::due() const { return seconds_now() - shown_ >= (terminal_ ? kBarEvery : kLineEvery); }

void Progress::show(const ProgressState& state) {
  shown_ = seconds_now();
  if (terminal_)
    std::fprintf(out_, "\r%s\033[K", progress_line(state, width() - 1, true).c_str());
  else
    std::fprintf(out_, "%s\n", progress_line(state, 200, false).c_str());
  std::fflush(out_);
}

void Progress::advance(double work, const std::string& label, const std::string& numbers) {
  advance(work);
  if (due()) show({label, share(), numbers, seconds_left()});
}

void Progress::say(const std::string& line) {
  clear();
  std::fprintf(out_, "%s\n", line.c_str());
  std::fflush(out_);
}

void Progress::clear() {
  if (terminal_) std::fprintf(out_, "\r\033[K");
}

size_t Progress::width() const {
#ifndef _WIN32
  winsize size{};
  if (ioctl(fileno(out_), TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
#endif
  return 80;
}

}  // namespace presentation
