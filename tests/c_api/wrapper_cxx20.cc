// SPDX-License-Identifier: Apache-2.0
// Compiling it is the test: the C++ wrapper alone, as strict C++20.
#include "nestling/nestling.hpp"

static_assert(!std::is_copy_constructible_v<nestling::Engine>);
