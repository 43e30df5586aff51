/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How another benchmark harness calls the library: ids in, ids out, times of its own. Prints one
 * JSON object. Usage: harness_example MODEL.nest [PROMPT_TOKENS [OUTPUT_TOKENS [THREADS]]]
 *
 *   cc harness_example.c $(pkg-config --cflags --libs nestling)
 */
#define _POSIX_C_SOURCE 200809L
#include <nestling/nestling.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* When each token came. */
typedef struct token_times {
  double* seconds;
  size_t count, capacity;
} token_times;

static int32_t note_time(void* user, const nestling_token* token) {
  token_times* times = user;
  if (token->id < 0) return 0; /* held-back text, no token */
  if (times->count == times->capacity) return 1;
  times->seconds[times->count++] = now_seconds();
  return 0;
}

static int by_size(const void* left, const void* right) {
  const double a = *(const double*)left, b = *(const double*)right;
  return (a > b) - (a < b);
}

/* Nearest rank. Sorts `values`. */
static double percentile(double* values, size_t count, double percent) {
  size_t rank = (size_t)(percent / 100.0 * (double)count + 0.999999);
  if (count == 0) return 0;
  qsort(values, count, sizeof *values, by_size);
  return values[rank == 0 ? 0 : rank - 1];
}

/* One measurement on a loaded model; 0 if a call failed. */
static int measure(nestling_engine* engine, nestling_session* session, size_t prompt_tokens,
                   size_t output_tokens, int32_t* prompt, double* times, double load_seconds) {
  nestling_engine_info info;
  nestling_generate_options options;
  nestling_session_counters before, after;
  nestling_process_memory memory;
  token_times output = {times, 0, output_tokens};
  double start, prefilled, decode_seconds;
  size_t i;

  NESTLING_INIT(&info);
  NESTLING_INIT(&options);
  NESTLING_INIT(&before);
  NESTLING_INIT(&after);
  NESTLING_INIT(&memory);
  if (nestling_engine_get_info(engine, &info) != NESTLING_OK) return 0;
  for (i = 0; i < prompt_tokens; ++i) prompt[i] = (int32_t)((i * 37 + 11) % (info.vocab_size / 2));
  options.sampling = NESTLING_SAMPLING_GREEDY;
  options.max_tokens = (uint32_t)output_tokens;
  options.ignore_stop_tokens = 1;

  start = now_seconds();
  if (nestling_session_prefill(session, prompt, prompt_tokens) != NESTLING_OK) return 0;
  prefilled = now_seconds();
  if (nestling_session_get_counters(session, &before) != NESTLING_OK ||
      nestling_session_generate(session, &options, note_time, &output, NULL) != NESTLING_OK ||
      nestling_session_get_counters(session, &after) != NESTLING_OK ||
      nestling_process_get_memory(&memory) != NESTLING_OK || output.count < 2) {
    return 0;
  }
  /* The first token's logits are the prefill's: count-1 steps lie between the first and the last.
   */
  decode_seconds = times[output.count - 1] - times[0];
  printf("{\"load_ms\": %.3f, \"first_token_ms\": %.3f, \"prefill_tokens_per_second\": %.3f, ",
         1e3 * load_seconds, 1e3 * (times[0] - start), (double)prompt_tokens / (prefilled - start));
  printf("\"decode_tokens_per_second\": %.3f, ", (double)(output.count - 1) / decode_seconds);
  for (i = output.count - 1; i > 0; --i) times[i] -= times[i - 1];
  printf("\"token_p50_ms\": %.3f, \"token_p95_ms\": %.3f, ",
         1e3 * percentile(times + 1, output.count - 1, 50),
         1e3 * percentile(times + 1, output.count - 1, 95));
  printf("\"weight_bytes_per_token\": %.0f, ",
         (double)(after.weight_bytes_read - before.weight_bytes_read) / (double)(output.count - 1));
  printf("\"peak_resident_bytes\": %.0f, \"anonymous_bytes\": %.0f}\n",
         (double)memory.peak_resident_bytes, (double)memory.anonymous_bytes);
  return 1;
}

int main(int argc, char** argv) {
  const size_t prompt_tokens = argc > 2 ? strtoul(argv[2], NULL, 10) : 512;
  const size_t output_tokens = argc > 3 ? strtoul(argv[3], NULL, 10) : 128;
  nestling_engine* engine = NULL;
  nestling_session* session = NULL;
  nestling_engine_options engine_options;
  nestling_session_options session_options;
  int32_t* prompt;
  double* times;
  double start;
  int done;

  if (argc < 2 || prompt_tokens < 1 || output_tokens < 2) {
    fprintf(stderr, "usage: %s MODEL.nest [PROMPT_TOKENS [OUTPUT_TOKENS >= 2 [THREADS]]]\n",
            argv[0]);
    return 2;
  }
  if (!nestling_abi_check(NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR)) {
    fprintf(stderr, "library %s does not fit this program\n", nestling_version_string());
    return 1;
  }
  prompt = malloc(prompt_tokens * sizeof *prompt);
  times = malloc(output_tokens * sizeof *times);
  NESTLING_INIT(&engine_options);
  NESTLING_INIT(&session_options);
  if (argc > 4) engine_options.num_threads = (uint32_t)strtoul(argv[4], NULL, 10);
  session_options.context_tokens = (uint32_t)(prompt_tokens + output_tokens);

  start = now_seconds();
  done =
      prompt != NULL && times != NULL &&
      nestling_engine_create(argv[1], &engine_options, &engine) == NESTLING_OK &&
      nestling_session_create(engine, &session_options, &session) == NESTLING_OK &&
      measure(engine, session, prompt_tokens, output_tokens, prompt, times, now_seconds() - start);
  if (!done) {
    const char* error = nestling_last_error();
    fprintf(stderr, "%s\n", error != NULL ? error : "no memory, or no output");
  }
  nestling_session_destroy(session); /* NULL is fine */
  nestling_engine_destroy(engine);
  free(times);
  free(prompt);
  return done ? 0 : 1;
}
