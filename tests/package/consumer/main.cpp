#include <steppe/steppe.hpp>

at::Tensor train_elsewhere();
int processes();

int main() {
  const at::Tensor w = train_elsewhere();
  const steppe::Perturbation at({w}, {w.detach().clone()}, 0.1);
  return w.isfinite().all().item<bool>() && processes() == 1 ? 0 : 1;
}
