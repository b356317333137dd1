#include <steppe/distributed/gloo.hpp>

int processes();

int processes() {
  const auto world = steppe::distributed::world();
  return steppe::distributed::gloo(world)->getSize();
}
