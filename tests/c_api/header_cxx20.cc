// SPDX-License-Identifier: Apache-2.0
// Compiling it is the test: the header alone, as strict C++20.
#include "nestling/nestling.h"

static_assert(NESTLING_VERSION_MAJOR >= 0);
