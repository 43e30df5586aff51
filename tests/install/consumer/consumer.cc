// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <nestling/nestling.hpp>

int main() {
  try {
    const nestling::Engine engine("no such model");
  } catch (const nestling::Error& error) {
    std::puts(error.what());
    return error.status() == NESTLING_NOT_FOUND ? 0 : 1;
  }
  return 1;
}
