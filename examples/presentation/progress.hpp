// Progress of long work: a bar on a terminal, elsewhere a plain line now and then.
// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <string>

namespace presentation {

/// "59 s", "12:05 min", "3:07 h".
std::string duration(double seconds);

struct ProgressState {
  std::string label;    ///< "sam, seed 1  epoch 3/20"
  double share = 0.0;   ///< of what the label names, for the bar
  std::string numbers;  ///< "loss 1.234"; may be empty
  double seconds_left = 0.0;
};

/// One line of at most `width` characters; with a bar where there is room for one.
std::string progress_line(const ProgressState& state, size_t width, bool with_bar);

class Progress {
 public:
  /// `work` is the total, in units of the caller.
  Progress(std::FILE* out, double work);

  void advance(double work) { done_ += work; }
  /// Work that will not be done, or was done before.
  void skip(double work) { work_ -= work; }
  double share() const { return work_ > 0.0 ? done_ / work_ : 0.0; }
  double seconds_left() const;
  /// Whether enough time has passed to show something.
  bool due() const;
  void show(const ProgressState& state);
  /// advance(), and shows the share of the whole where it is due.
  void advance(double work, const std::string& label, const std::string& numbers = "");
  /// A line that stays, above the bar.
  void say(const std::string& line);
  /// Removes the bar.
  void clear();

 private:
  size_t width() const;

  std::FILE* out_;
  bool terminal_;
  double work_, done_ = 0.0;
  double start_, shown_;
};

}  // namespace presentation
