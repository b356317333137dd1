// The same text a second time in one program.
#include "steppe.hpp"

double default_radius();
double default_radius() { return steppe::Options().rho(); }
