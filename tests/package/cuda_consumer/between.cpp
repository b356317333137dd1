#include <steppe/steppe.hpp>

double moved_by(const at::Tensor& w, const at::Tensor& gradient);

double moved_by(const at::Tensor& w, const at::Tensor& gradient) {
  const at::Tensor before = w.detach().clone();
  const steppe::Perturbation at({w}, {gradient}, 0.1);
  return (w.detach() - before).norm().item<double>();
}
