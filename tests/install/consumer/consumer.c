/* SPDX-License-Identifier: Apache-2.0 */
#include <nestling/nestling.h>
#include <stdio.h>

int main(void) {
  nestling_engine* engine = NULL;
  if (!nestling_abi_check(NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR)) return 1;
  if (nestling_engine_create("no such model", NULL, &engine) != NESTLING_NOT_FOUND) return 1;
  puts(nestling_last_error());
  return 0;
}
