// steppe-tensor-completion: Tucker completion with Adam, SAM, DAS and HOOI, on observed and on held-out entries.
// SPDX-License-Identifier: MIT
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "arguments.hpp"
#include "conclusions.hpp"
#include "npy.hpp"
#include "pictures.hpp"
#include "presentation/files.hpp"
#include "presentation/formatted.hpp"
#include "presentation/interrupt.hpp"
#include "presentation/page.hpp"
#include "report.hpp"
#include "study.hpp"
#include "tucker_model.hpp"

namespace {

using completion::Arguments;
using completion::Results;
using presentation::formatted;
using presentation::text_of;

/// The tensor; ranks that were not given are filled in.
at::Tensor load(Arguments& arguments) {
  const at::Tensor values = completion::read_npy(
      arguments.bundled() ? presentation::bundled_data("tensor_completion") / "COVID19_data.npy" : arguments.data);
  if (!values.isfinite().all().item<bool>())
    throw std::runtime_error(arguments.data.string() + " holds values that are not finite; fill or drop them first");
  std::vector<int64_t>& ranks = arguments.training.ranks;
  if (ranks.empty())
    for (const int64_t size : values.sizes()) ranks.push_back(std::min<int64_t>(size, 8));
  completion::check_ranks(values.sizes().vec(), ranks, "--rank");
  completion::draw_split(values.sizes().vec(), arguments.masked, 0.1, arguments.study.seed);
  return values;
}

std::string listed(const std::vector<int64_t>& numbers) {
  std::string text;
  for (const int64_t number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return "(" + text + ")";
}

std::string setting(const Arguments& arguments, const at::Tensor& values) {
  const completion::TrainingSettings& training = arguments.training;
  return formatted(
      "%s of shape %s; %g %% of the entries held out; Tucker rank %s; core and factors drawn from N(0, %g^2), float64; "
      "loss: mean squared error over the observed entries; Adam with lr %g, %lld iterations; rho %g, alpha %g.",
      arguments.bundled() ? "COVID-19 serology (samples, antigens, receptors)" : arguments.data.filename().c_str(),
      listed(values.sizes().vec()).c_str(), 100.0 * arguments.masked, listed(training.ranks).c_str(),
      training.initial_scale, training.learning_rate, static_cast<long long>(training.iterations), training.rho,
      training.alpha);
}

std::string attempt_setting(const Arguments& arguments) {
  return formatted(
      "Each row changes one setting of those above, with %lld iterations (at most %lld sweeps of hooi). A tenth of "
      "the observed entries is kept for validation and not trained on, so that the held-out ones choose nothing. "
      "'Best validation' is the iteration with the best R2 there, among those that were evaluated.",
      static_cast<long long>(arguments.attempt_iterations), static_cast<long long>(arguments.sweeps));
}

void write_page(const Results& results, const Arguments& arguments, const at::Tensor& values) {
  presentation::Page page(arguments.study.out, "Tensor completion: Adam, SAM, DAS, HOOI");
  page.paragraph(setting(arguments, values));
  if (!results.finished) page.paragraph("This run was interrupted; the last method ended early.");
  page.table("R2 on the observed entries, which were trained on; mean ± standard deviation over the splits",
             observed_table(results, arguments));
  page.table("R2 on the held-out entries, and how their squared error is spread over the samples",
             held_out_table(results));
  page.table("Norm deviation Q at the end, and the cost of a run", deviation_table(results));
  page.verbatim(conclusions(results, arguments));
  page.figure("fit", "Loss and unexplained variance over the iterations", fit_figure(results), moments_csv(results));
  page.figure("deviation", "Norm deviation over the iterations; where the correlation is over 0, SAM's flow raises Q",
              deviation_figure(results), moments_csv(results));
  page.figure("samples", "The distribution of the held-out error", samples_figure(results), samples_csv(results));
  if (results.tried.empty()) return;
  page.heading("What helps on held-out entries (not the published setting)");
  page.paragraph(attempt_setting(arguments));
  page.table("Attempts; mean ± standard deviation over the splits", attempts_table(results));
  page.verbatim(attempt_conclusions(results));
  page.figure("attempts", "Each knob alone", attempts_figure(results), attempts_csv(results));
}

void print(const Results& results, const Arguments& arguments) {
  std::printf("\nR2 on the observed entries, which were trained on\n%s",
              text_of(observed_table(results, arguments)).c_str());
  std::printf("\nR2 on the held-out entries\n%s", text_of(held_out_table(results)).c_str());
  std::printf("\nNorm deviation Q at the end\n%s", text_of(deviation_table(results)).c_str());
  std::printf("\n%s", conclusions(results, arguments).c_str());
  if (!results.tried.empty())
    std::printf("\nWhat helps on held-out entries (not the published setting)\n%s\n%s",
                text_of(attempts_table(results)).c_str(), attempt_conclusions(results).c_str());
  std::printf("\nResults: %s\n", (arguments.study.out / "index.html").c_str());
  if (!results.finished) std::printf("Interrupted: these are the results so far.\n");
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto code = completion::parse_arguments(argc, argv, arguments)) return *code;
  at::set_num_threads(arguments.study.threads);
  const at::Tensor values = load(arguments);
  presentation::make_writable(arguments.study.out, "--out");
  std::printf("%s\n\n", setting(arguments, values).c_str());
  presentation::catch_interrupts();
  const Results results =
      completion::carry_out(arguments, values, [&](const Results& so_far) { write_page(so_far, arguments, values); });
  write_page(results, arguments, values);
  print(results, arguments);
  return results.finished ? 0 : presentation::kInterrupted;
}

}  // namespace

int main(int argc, char** argv) {
  return presentation::carried_out("steppe-tensor-completion", [&] { return run(argc, argv); });
}
