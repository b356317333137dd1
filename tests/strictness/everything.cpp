// Every header in a program that has X11's, Qt's and Windows' macros, which come after LibTorch and before steppe.
// SPDX-License-Identifier: MIT
#include <torch/torch.h>

#define None 0L
#define Status int
#define Bool int
#define True 1
#define False 0
#define Success 0
#define Always 2
#define Above 0
#define Below 1
#define Complex 0
#define Unsorted 0
#define KeyPress 2
#define FocusIn 9
#define CursorShape 0
#define emit
#define slots
#define signals public
#define foreach(variable, container) for (variable : container)
#define forever for (;;)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define near
#define far
#define small char
#define ERROR 0

#include <steppe/steppe.hpp>

int main() {}
