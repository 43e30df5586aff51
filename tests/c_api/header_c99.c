/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling it is the test: the header alone, as strict C99. */
#include "nestling/nestling.h"
#include "nestling/nestling.h" /* twice */

int nestling_header_is_c99(void) { return (int)sizeof(nestling_engine_options); }
