#include <steppe/steppe.hpp>

at::Tensor train_elsewhere();

#ifdef WITH_PROCESSES
int processes();
#else
static int processes() { return 1; }
#endif

int main() {
  const at::Tensor w = train_elsewhere();
  const steppe::Perturbation at({w}, {w.detach().clone()}, 0.1);
  return w.isfinite().all().item<bool>() && processes() == 1 ? 0 : 1;
}
