/* SPDX-License-Identifier: Apache-2.0 */
/* The C API as a C program sees it: strict C99, the shared library, no header but the public one.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nestling/nestling.h"

#define PLAIN_MODEL NESTLING_MODELS "/plain.nest"
#define CHAT_MODEL NESTLING_MODELS "/chat.nest"

static int g_failures = 0;

#define EXPECT(condition)                                                      \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: %s is false\n", __FILE__, __LINE__, #condition); \
      ++g_failures;                                                            \
    }                                                                          \
  } while (0)

/* The status of a call; a failure must come with words, a success without. */
#define EXPECT_STATUS(call, wanted)                                                  \
  do {                                                                               \
    const nestling_status status_ = (call);                                          \
    const char* error_ = nestling_last_error();                                      \
    if (status_ != (wanted) || (error_ == NULL) != (status_ == NESTLING_OK)) {       \
      fprintf(stderr, "%s:%d: %s is %s (%s), want %s\n", __FILE__, __LINE__, #call,  \
              nestling_status_name(status_), error_ != NULL ? error_ : "no message", \
              nestling_status_name(wanted));                                         \
      ++g_failures;                                                                  \
    }                                                                                \
  } while (0)

/* INVALID_ARGUMENT, with a message that begins with the argument's name. */
#define EXPECT_REFUSED(call, argument)                                                  \
  do {                                                                                  \
    EXPECT_STATUS(call, NESTLING_INVALID_ARGUMENT);                                     \
    if (nestling_last_error() == NULL ||                                                \
        strncmp(nestling_last_error(), argument, strlen(argument)) != 0) {              \
      fprintf(stderr, "%s:%d: message \"%s\", want one about %s\n", __FILE__, __LINE__, \
              nestling_last_error() != NULL ? nestling_last_error() : "", argument);    \
      ++g_failures;                                                                     \
    }                                                                                   \
  } while (0)

static nestling_engine* open_engine(const char* path) {
  nestling_engine* engine = NULL;
  nestling_engine_options options;
  NESTLING_INIT(&options);
  options.num_threads = 1; /* so small a model only loses by more */
  EXPECT_STATUS(nestling_engine_create(path, &options, &engine), NESTLING_OK);
  if (engine == NULL) exit(1);
  return engine;
}

static nestling_session* open_session(nestling_engine* engine) {
  nestling_session* session = NULL;
  EXPECT_STATUS(nestling_session_create(engine, NULL, &session), NESTLING_OK);
  if (session == NULL) exit(1);
  return session;
}

static nestling_session_info info_of(const nestling_session* session) {
  nestling_session_info info;
  NESTLING_INIT(&info);
  EXPECT_STATUS(nestling_session_get_info(session, &info), NESTLING_OK);
  return info;
}

/* Greedy, past stop tokens. */
static nestling_generate_options long_reply(uint32_t max_tokens) {
  nestling_generate_options options;
  NESTLING_INIT(&options);
  options.max_tokens = max_tokens;
  options.sampling = NESTLING_SAMPLING_GREEDY;
  options.ignore_stop_tokens = 1;
  return options;
}

static void version_and_names_agree_with_the_header(void) {
  char version[32];
  snprintf(version, sizeof(version), "%d.%d.%d", NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR,
           NESTLING_VERSION_PATCH);
  EXPECT(strcmp(nestling_version_string(), version) == 0);
  EXPECT(nestling_abi_check(NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR) == 1);
  EXPECT(nestling_abi_check(NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR + 1) == 0);
  EXPECT(nestling_abi_check(NESTLING_VERSION_MAJOR + 1, 0) == 0);
  EXPECT(nestling_abi_check(-1, -1) == 0);
  EXPECT(strcmp(nestling_status_name(NESTLING_CONTEXT_FULL), "CONTEXT_FULL") == 0);
  EXPECT(strcmp(nestling_status_name(12345), "UNKNOWN") == 0);
  EXPECT(strcmp(nestling_stop_reason_name(NESTLING_STOP_STRING), "stop_string") == 0);
  EXPECT(strcmp(nestling_stop_reason_name(-7), "unknown") == 0);
}

static void null_is_refused_by_name_or_harmless(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_engine* no_engine = NULL;
  nestling_session* no_session = NULL;
  const int32_t token = 2;
  const float* logits = NULL;
  size_t needed = 0;
  char text[8];

  nestling_engine_destroy(NULL);
  nestling_session_destroy(NULL);
  nestling_session_cancel(NULL);
  nestling_init(NULL, 8);

  EXPECT_REFUSED(nestling_engine_create(NULL, NULL, &no_engine), "path");
  EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, NULL, NULL), "out_engine");
  EXPECT_REFUSED(nestling_engine_create_from_fd(0, 0, 0, NULL, NULL), "out_engine");
  EXPECT_REFUSED(nestling_engine_get_info(NULL, NULL), "engine");
  EXPECT_REFUSED(nestling_engine_get_info(engine, NULL), "out_info");
  EXPECT_REFUSED(nestling_engine_get_slice(NULL, 0, NULL), "engine");
  EXPECT_REFUSED(nestling_engine_get_slice(engine, 0, NULL), "out_slice");
  EXPECT_REFUSED(nestling_engine_get_memory(NULL, NULL), "engine");
  EXPECT_REFUSED(nestling_engine_get_memory(engine, NULL), "out_memory");
  EXPECT_REFUSED(nestling_engine_get_residency(NULL, NULL), "engine");
  EXPECT_REFUSED(nestling_engine_get_residency(engine, NULL), "out_residency");
  EXPECT_REFUSED(nestling_process_get_memory(NULL), "out_memory");
  EXPECT_REFUSED(nestling_engine_tokenize(NULL, "a", 1, 0, NULL, 0, &needed), "engine");
  EXPECT_REFUSED(nestling_engine_tokenize(engine, NULL, 1, 0, NULL, 0, &needed), "text");
  EXPECT_REFUSED(nestling_engine_tokenize(engine, "a", 1, 0, NULL, 0, NULL), "out_num_tokens");
  EXPECT_REFUSED(nestling_engine_tokenize(engine, "a", 1, 0, NULL, 4, &needed), "buffer");
  EXPECT_REFUSED(nestling_engine_detokenize(NULL, &token, 1, 0, NULL, 0, &needed), "engine");
  EXPECT_REFUSED(nestling_engine_detokenize(engine, NULL, 1, 0, NULL, 0, &needed), "tokens");
  EXPECT_REFUSED(nestling_engine_detokenize(engine, &token, 1, 0, text, 8, NULL), "out_needed");
  EXPECT_REFUSED(nestling_engine_token_piece(NULL, 2, text, 8, &needed), "engine");
  EXPECT_REFUSED(nestling_engine_token_piece(engine, 2, text, 8, NULL), "out_needed");
  EXPECT_REFUSED(nestling_session_create(NULL, NULL, &no_session), "engine");
  EXPECT_REFUSED(nestling_session_create(engine, NULL, NULL), "out_session");
  EXPECT_REFUSED(nestling_session_get_info(NULL, NULL), "session");
  EXPECT_REFUSED(nestling_session_get_info(session, NULL), "out_info");
  EXPECT_REFUSED(nestling_session_get_counters(NULL, NULL), "session");
  EXPECT_REFUSED(nestling_session_get_counters(session, NULL), "out_counters");
  EXPECT_REFUSED(nestling_session_reset(NULL), "session");
  EXPECT_REFUSED(nestling_session_set_slice(NULL, "half"), "session");
  EXPECT_REFUSED(nestling_session_prefill(NULL, &token, 1), "session");
  EXPECT_REFUSED(nestling_session_prefill(session, NULL, 1), "tokens");
  EXPECT_REFUSED(nestling_session_eval(session, &token, 1, NULL, NULL), "callback");
  EXPECT_REFUSED(nestling_session_get_logits(NULL, &logits, NULL), "session");
  EXPECT_REFUSED(nestling_session_get_logits(session, NULL, NULL), "out_logits");
  EXPECT_REFUSED(nestling_session_truncate(NULL, 0), "session");
  EXPECT_REFUSED(nestling_session_add_message(NULL, NESTLING_ROLE_USER, "a", 1), "session");
  EXPECT_REFUSED(nestling_session_add_message(session, NESTLING_ROLE_USER, NULL, 1), "text");
  EXPECT_REFUSED(nestling_session_generate(NULL, NULL, NULL, NULL, NULL), "session");
  EXPECT_REFUSED(nestling_pack(NULL, "out.nest", NULL), "source");
  EXPECT_REFUSED(nestling_pack("folder", NULL, NULL), "output");
  EXPECT_REFUSED(nestling_synthesize(NULL, NULL), "output");
  EXPECT_REFUSED(nestling_verify(NULL, NULL, NULL), "path");
  EXPECT_REFUSED(nestling_inspect(NULL, NULL, 0, &needed), "path");
  EXPECT_REFUSED(nestling_inspect(CHAT_MODEL, NULL, 0, NULL), "out_needed");

  EXPECT(info_of(session).num_tokens == 0);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void absurd_numbers_are_refused_by_name(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_engine* no_engine = NULL;
  nestling_session* no_session = NULL;
  nestling_engine_options engine_options;
  nestling_session_options session_options;
  nestling_generate_options generate;
  const int32_t tokens[2] = {2, 7};
  const int32_t bad_ids[2] = {2, 2000000000};
  const int32_t negative_ids[1] = {-1};
  const char* strings[1] = {NULL};
  size_t needed = 0;

  NESTLING_INIT(&engine_options);
  engine_options.num_threads = 0xffffffffu;
  EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, &engine_options, &no_engine),
                 "options.num_threads");
  NESTLING_INIT(&engine_options);
  engine_options.cpu_mask = UINT64_C(1) << 63; /* a core that no machine of ours has */
  EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, &engine_options, &no_engine), "cpu mask");
  NESTLING_INIT(&engine_options);
  engine_options.chunk_tokens = 0xffffffffu;
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &engine_options, &no_engine),
                NESTLING_INVALID_ARGUMENT);
  EXPECT_REFUSED(nestling_engine_create_from_fd(-1, 0, 0, NULL, &no_engine), "fd");
  EXPECT(no_engine == NULL);

  NESTLING_INIT(&session_options);
  session_options.kv_type = 4;
  EXPECT_REFUSED(nestling_session_create(engine, &session_options, &no_session), "options.kv_type");
  session_options.kv_type = -1;
  EXPECT_REFUSED(nestling_session_create(engine, &session_options, &no_session), "options.kv_type");
  NESTLING_INIT(&session_options);
  session_options.context_tokens = 0xffffffffu;
  EXPECT_STATUS(nestling_session_create(engine, &session_options, &no_session),
                NESTLING_INVALID_ARGUMENT);
  NESTLING_INIT(&session_options);
  session_options.chunk_tokens = 0xffffffffu;
  EXPECT_STATUS(nestling_session_create(engine, &session_options, &no_session),
                NESTLING_INVALID_ARGUMENT);
  EXPECT(no_session == NULL);

  EXPECT_REFUSED(nestling_engine_tokenize(engine, "a", (size_t)-2, 0, NULL, 0, &needed), "text");
  EXPECT_REFUSED(nestling_engine_tokenize(engine, "a", 1, 64, NULL, 0, &needed), "flags");
  EXPECT_REFUSED(nestling_engine_detokenize(engine, tokens, (size_t)-1, 0, NULL, 0, &needed),
                 "num_tokens");
  EXPECT_STATUS(nestling_engine_detokenize(engine, bad_ids, 2, 0, NULL, 0, &needed),
                NESTLING_INVALID_ARGUMENT);
  EXPECT_STATUS(nestling_engine_token_piece(engine, -1, NULL, 0, &needed),
                NESTLING_INVALID_ARGUMENT);
  {
    nestling_slice_info slice;
    NESTLING_INIT(&slice);
    EXPECT_REFUSED(nestling_engine_get_slice(engine, (size_t)-1, &slice), "index");
  }

  EXPECT_STATUS(nestling_session_prefill(session, tokens, (size_t)-1), NESTLING_CONTEXT_FULL);
  EXPECT(strstr(nestling_last_error(), "4096") != NULL);
  EXPECT_STATUS(nestling_session_prefill(session, bad_ids, 2), NESTLING_INVALID_ARGUMENT);
  EXPECT_STATUS(nestling_session_prefill(session, negative_ids, 1), NESTLING_INVALID_ARGUMENT);
  EXPECT_REFUSED(nestling_session_truncate(session, (size_t)-1), "num_tokens");
  EXPECT_REFUSED(nestling_session_add_message(session, 0, "a", 1), "role");
  EXPECT_REFUSED(nestling_session_add_message(session, 77, "a", 1), "role");
  EXPECT(info_of(session).num_tokens == 0);

  EXPECT_STATUS(nestling_session_prefill(session, tokens, 2), NESTLING_OK);
  NESTLING_INIT(&generate);
  generate.sampling = 9;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                 "options.sampling");
  NESTLING_INIT(&generate);
  generate.sampling = NESTLING_SAMPLING_RANDOM;
  generate.top_k = -2;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL), "options.top_k");
  NESTLING_INIT(&generate);
  generate.sampling = NESTLING_SAMPLING_RANDOM;
  generate.temperature = -1.0f;
  EXPECT_STATUS(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                NESTLING_INVALID_ARGUMENT);
  generate.temperature = 1.0f;
  generate.top_p = 2.0f;
  EXPECT_STATUS(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                NESTLING_INVALID_ARGUMENT);
  NESTLING_INIT(&generate);
  generate.repetition_penalty = -3.0f;
  EXPECT_STATUS(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                NESTLING_INVALID_ARGUMENT);
  NESTLING_INIT(&generate);
  generate.num_stop_tokens = 1;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                 "options.stop_tokens");
  generate.stop_tokens = bad_ids;
  generate.num_stop_tokens = (size_t)-1;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                 "options.num_stop_tokens");
  generate.num_stop_tokens = 2;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                 "options.stop_tokens[1]");
  NESTLING_INIT(&generate);
  generate.stop_strings = strings;
  generate.num_stop_strings = 1;
  EXPECT_REFUSED(nestling_session_generate(session, &generate, NULL, NULL, NULL),
                 "options.stop_strings[0]");
  EXPECT(info_of(session).num_tokens == 2);

  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void structs_of_other_sizes_work_unless_they_set_what_is_unknown(void) {
  struct {
    nestling_engine_options known;
    uint64_t later_field;
  } newer;
  nestling_engine_options options;
  nestling_engine_info info;
  nestling_engine* engine = NULL;

  memset(&newer, 0, sizeof(newer));
  newer.known.struct_size = sizeof(newer);
  newer.known.num_threads = 1;
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &newer.known, &engine), NESTLING_OK);
  nestling_engine_destroy(engine);
  newer.later_field = 1;
  EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, &newer.known, &engine), "options");

  NESTLING_INIT(&options);
  EXPECT(options.struct_size == sizeof(options) && options.slice == NULL);
  options.num_threads = 1;
  options.slice = "not looked at: the struct ends before it";
  options.struct_size = offsetof(nestling_engine_options, slice);
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &options, &engine), NESTLING_OK);

  {
    const size_t bad_sizes[] = {0, 1, sizeof(options) + 1, (size_t)-1, (size_t)1 << 20};
    size_t i;
    for (i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); ++i) {
      nestling_engine* none = NULL;
      options.struct_size = bad_sizes[i];
      EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, &options, &none), "options.struct_size");
      info.struct_size = bad_sizes[i];
      EXPECT_REFUSED(nestling_engine_get_info(engine, &info), "out_info.struct_size");
    }
  }

  /* An older program's struct is filled up to its end, and not behind it. */
  memset(&info, 0x5a, sizeof(info));
  info.struct_size = offsetof(nestling_engine_info, num_layers);
  EXPECT_STATUS(nestling_engine_get_info(engine, &info), NESTLING_OK);
  EXPECT(info.vocab_size > 0 && info.vocab_size != 0x5a5a5a5au);
  EXPECT(info.num_layers == 0x5a5a5a5au);
  EXPECT(info.struct_size == offsetof(nestling_engine_info, num_layers));
  {
    struct {
      nestling_engine_info known;
      uint64_t later_field;
    } newer_info;
    memset(&newer_info, 0x5a, sizeof(newer_info));
    newer_info.known.struct_size = sizeof(newer_info);
    EXPECT_STATUS(nestling_engine_get_info(engine, &newer_info.known), NESTLING_OK);
    EXPECT(newer_info.later_field == 0);
  }
  nestling_engine_destroy(engine);
}

static void copy_out_says_the_size_and_writes_no_part(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  int32_t tokens[64] = {0};
  size_t num_tokens = 0, needed = 0, again = 0;
  char text[64];

  EXPECT_STATUS(nestling_engine_tokenize(engine, "hello world", NESTLING_NUL_TERMINATED, 0, NULL, 0,
                                         &num_tokens),
                NESTLING_OK);
  EXPECT(num_tokens >= 2 && num_tokens < 64);
  EXPECT_REFUSED(nestling_engine_tokenize(engine, "hello world", NESTLING_NUL_TERMINATED, 0, tokens,
                                          num_tokens - 1, &again),
                 "capacity");
  EXPECT(again == num_tokens && tokens[0] == 0);
  EXPECT_STATUS(nestling_engine_tokenize(engine, "hello world!", 11, 0, tokens, 64, &again),
                NESTLING_OK);
  EXPECT(again == num_tokens);

  EXPECT_STATUS(nestling_engine_detokenize(engine, tokens, num_tokens, 0, NULL, 0, &needed),
                NESTLING_OK);
  EXPECT(needed == strlen("hello world") + 1);
  memset(text, 'x', sizeof(text));
  EXPECT_REFUSED(
      nestling_engine_detokenize(engine, tokens, num_tokens, 0, text, needed - 1, &again),
      "capacity");
  EXPECT(again == needed && text[0] == '\0' && text[1] == 'x');
  EXPECT_STATUS(nestling_engine_detokenize(engine, tokens, num_tokens, 0, text, needed, &again),
                NESTLING_OK);
  EXPECT(strcmp(text, "hello world") == 0);
  EXPECT_STATUS(nestling_engine_tokenize(engine, "\xff", 1, 0, tokens, 64, &again),
                NESTLING_INVALID_ARGUMENT);
  nestling_engine_destroy(engine);
}

static void files_that_are_no_models_are_clear_errors(void) {
  nestling_engine* engine = (nestling_engine*)&g_failures;
  nestling_engine_options options;
  EXPECT_STATUS(nestling_engine_create("no/such/file", NULL, &engine), NESTLING_NOT_FOUND);
  EXPECT(engine == NULL);
  EXPECT_STATUS(nestling_engine_create(NESTLING_HEADER, NULL, &engine), NESTLING_BAD_MODEL);
  EXPECT_STATUS(nestling_verify(NESTLING_HEADER, NULL, NULL), NESTLING_BAD_MODEL);
  EXPECT_STATUS(nestling_verify(CHAT_MODEL, NULL, NULL), NESTLING_OK);
  NESTLING_INIT(&options);
  options.slice = "no such slice";
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &options, &engine), NESTLING_NOT_FOUND);
}

static void a_model_inside_another_file_opens_by_descriptor(void) {
  static const char kName[] = NESTLING_MODELS "/embedded.bin";
  enum { kOffset = 16384 };
  nestling_engine* engine = NULL;
  nestling_session* session = NULL;
  const int32_t token = 2;
  char* bytes = NULL;
  long size = 0;
  int fd = -1;
  FILE* in = fopen(CHAT_MODEL, "rb");
  FILE* out = fopen(kName, "wb");
  EXPECT(in != NULL && out != NULL);
  if (in == NULL || out == NULL) return;
  fseek(in, 0, SEEK_END);
  size = ftell(in);
  rewind(in);
  bytes = (char*)calloc(1, (size_t)size + kOffset);
  EXPECT(fread(bytes + kOffset, 1, (size_t)size, in) == (size_t)size);
  EXPECT(fwrite(bytes, 1, (size_t)size + kOffset, out) == (size_t)size + kOffset);
  EXPECT(fwrite("tail", 1, 4, out) == 4);
  fclose(in);
  fclose(out);
  free(bytes);

  fd = open(kName, O_RDONLY);
  EXPECT_STATUS(nestling_engine_create_from_fd(fd, kOffset, (uint64_t)size, NULL, &engine),
                NESTLING_OK);
  EXPECT(close(fd) == 0); /* ours to close, and the engine does not mind */
  EXPECT_STATUS(nestling_session_create(engine, NULL, &session), NESTLING_OK);
  EXPECT_STATUS(nestling_session_prefill(session, &token, 1), NESTLING_OK);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
  remove(kName);
}

static void without_a_tokenizer_only_text_fails(void) {
  nestling_engine* engine = open_engine(PLAIN_MODEL);
  nestling_session* session = open_session(engine);
  const int32_t tokens[3] = {2, 5, 9};
  const char* stop = "x";
  size_t needed = 0;
  nestling_generate_options options = long_reply(3);
  nestling_generate_result result;
  EXPECT_STATUS(nestling_engine_tokenize(engine, "a", 1, 0, NULL, 0, &needed),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "a", 1),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 3), NESTLING_OK);
  NESTLING_INIT(&result);
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, &result), NESTLING_OK);
  EXPECT(result.num_tokens == 3 && result.stop_reason == NESTLING_STOP_MAX_TOKENS);
  options.stop_strings = &stop;
  options.num_stop_strings = 1;
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, &result),
                NESTLING_FAILED_PRECONDITION);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void a_full_context_is_an_error_with_both_numbers(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session_options options;
  nestling_session* session = NULL;
  nestling_generate_options generate = long_reply(0);
  nestling_generate_result result;
  int32_t tokens[20];
  size_t i;
  for (i = 0; i < 20; ++i) tokens[i] = 7;
  NESTLING_INIT(&options);
  options.context_tokens = 16;
  EXPECT_STATUS(nestling_session_create(engine, &options, &session), NESTLING_OK);
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 17), NESTLING_CONTEXT_FULL);
  EXPECT(strstr(nestling_last_error(), "17") != NULL &&
         strstr(nestling_last_error(), "16") != NULL);
  EXPECT(info_of(session).num_tokens == 0);
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 10), NESTLING_OK);
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 7), NESTLING_CONTEXT_FULL);
  EXPECT(info_of(session).num_tokens == 10);
  NESTLING_INIT(&result);
  EXPECT_STATUS(nestling_session_generate(session, &generate, NULL, NULL, &result), NESTLING_OK);
  EXPECT(result.stop_reason == NESTLING_STOP_CONTEXT_FULL && result.num_tokens == 6);
  EXPECT_STATUS(nestling_session_reset(session), NESTLING_OK);
  EXPECT_STATUS(
      nestling_session_add_message(session, NESTLING_ROLE_USER, "hello hello hello hello hello",
                                   NESTLING_NUL_TERMINATED),
      NESTLING_CONTEXT_FULL);
  EXPECT(info_of(session).num_tokens == 0);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void the_order_of_messages_is_kept(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_generate_options options = long_reply(4);
  const int32_t token = 2;
  const size_t nul = NESTLING_NUL_TERMINATED;
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_ASSISTANT, "hello", nul),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_SYSTEM, "hello", nul),
                NESTLING_OK);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_SYSTEM, "hello", nul),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "\xc3", nul),
                NESTLING_INVALID_ARGUMENT);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "hello", nul),
                NESTLING_OK);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "hello", nul),
                NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_prefill(session, &token, 1), NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_truncate(session, 0), NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL), NESTLING_OK);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "world", nul),
                NESTLING_OK);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_ASSISTANT, "hello", nul),
                NESTLING_OK);
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL), NESTLING_OK);
  EXPECT_STATUS(nestling_session_reset(session), NESTLING_OK);
  EXPECT_STATUS(nestling_session_prefill(session, &token, 1), NESTLING_OK);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "hello", nul),
                NESTLING_FAILED_PRECONDITION);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void* fail_on_another_thread(void* unused) {
  (void)unused;
  EXPECT(nestling_last_error() == NULL);
  EXPECT_STATUS(nestling_verify("another/file", NULL, NULL), NESTLING_NOT_FOUND);
  EXPECT(strstr(nestling_last_error(), "another/file") != NULL);
  return NULL;
}

static void errors_belong_to_their_thread_and_last_until_its_next_call(void) {
  pthread_t thread;
  nestling_process_memory memory;
  EXPECT_STATUS(nestling_verify("this/file", NULL, NULL), NESTLING_NOT_FOUND);
  pthread_create(&thread, NULL, &fail_on_another_thread, NULL);
  pthread_join(thread, NULL);
  EXPECT(strstr(nestling_last_error(), "this/file") != NULL);
  NESTLING_INIT(&memory);
  EXPECT_STATUS(nestling_process_get_memory(&memory), NESTLING_OK);
  EXPECT(nestling_last_error() == NULL);
}

/* What a callback finds out about its own session. */
typedef struct {
  nestling_session* session;
  int num_calls;
  nestling_status info, prefill, generate;
} inside;

static int32_t look_around(void* user, const nestling_token* token) {
  inside* look = (inside*)user;
  const int32_t id = 2;
  nestling_session_info info;
  NESTLING_INIT(&info);
  EXPECT(token->struct_size >= sizeof(*token) && token->text != NULL);
  look->info = nestling_session_get_info(look->session, &info);
  look->prefill = nestling_session_prefill(look->session, &id, 1);
  look->generate = nestling_session_generate(look->session, NULL, NULL, NULL, NULL);
  return ++look->num_calls == 2;
}

static void callbacks_may_look_but_not_run(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  inside look = {NULL, 0, NESTLING_INTERNAL, NESTLING_OK, NESTLING_OK};
  nestling_generate_options options = long_reply(10);
  nestling_generate_result result;
  const int32_t token = 2;
  look.session = open_session(engine);
  EXPECT_STATUS(nestling_session_prefill(look.session, &token, 1), NESTLING_OK);
  NESTLING_INIT(&result);
  EXPECT_STATUS(nestling_session_generate(look.session, &options, &look_around, &look, &result),
                NESTLING_OK);
  EXPECT(result.stop_reason == NESTLING_STOP_CALLBACK && result.num_tokens == 2);
  EXPECT(look.num_calls == 2 && look.info == NESTLING_OK);
  EXPECT(look.prefill == NESTLING_FAILED_PRECONDITION);
  EXPECT(look.generate == NESTLING_FAILED_PRECONDITION);
  nestling_session_destroy(look.session);
  nestling_engine_destroy(engine);
}

static void* cancel_session(void* session) {
  nestling_session_cancel((nestling_session*)session);
  return NULL;
}

static int32_t have_it_cancelled(void* session, const nestling_token* token) {
  pthread_t thread;
  (void)token;
  pthread_create(&thread, NULL, &cancel_session, session);
  pthread_join(thread, NULL);
  return 0;
}

static void another_thread_cancels_and_the_session_goes_on(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_generate_options options = long_reply(0);
  nestling_generate_result result;
  NESTLING_INIT(&result);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "hello", 5), NESTLING_OK);
  nestling_session_cancel(session); /* nothing runs: nothing happens */
  EXPECT_STATUS(nestling_session_generate(session, &options, &have_it_cancelled, session, &result),
                NESTLING_OK);
  EXPECT(result.stop_reason == NESTLING_STOP_CANCELLED && result.num_tokens == 1);
  EXPECT_STATUS(nestling_session_add_message(session, NESTLING_ROLE_USER, "world", 5), NESTLING_OK);
  options.max_tokens = 3;
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, &result), NESTLING_OK);
  EXPECT(result.stop_reason == NESTLING_STOP_MAX_TOKENS && result.num_tokens == 3);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

/* A generate call on its own thread, which says when it is in its first callback and waits there.
 */
typedef struct {
  nestling_session* session;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int in_callback;
  int go_on;
} worker;

static int32_t wait_in_callback(void* user, const nestling_token* token) {
  worker* w = (worker*)user;
  (void)token;
  pthread_mutex_lock(&w->mutex);
  w->in_callback = 1;
  pthread_cond_broadcast(&w->changed);
  while (!w->go_on) pthread_cond_wait(&w->changed, &w->mutex);
  pthread_mutex_unlock(&w->mutex);
  return 0;
}

static void* generate_without_end(void* user) {
  worker* w = (worker*)user;
  nestling_generate_options options = long_reply(0);
  EXPECT_STATUS(nestling_session_generate(w->session, &options, &wait_in_callback, w, NULL),
                NESTLING_OK);
  return NULL;
}

static void two_threads_at_once_are_refused_and_destroy_waits(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  worker w = {NULL, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
  pthread_t thread;
  const int32_t token = 2;
  nestling_session_info info;
  NESTLING_INIT(&info);
  w.session = open_session(engine);
  EXPECT_STATUS(nestling_session_prefill(w.session, &token, 1), NESTLING_OK);
  pthread_create(&thread, NULL, &generate_without_end, &w);
  pthread_mutex_lock(&w.mutex);
  while (!w.in_callback) pthread_cond_wait(&w.changed, &w.mutex);
  pthread_mutex_unlock(&w.mutex);

  EXPECT_STATUS(nestling_session_prefill(w.session, &token, 1), NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_get_info(w.session, &info), NESTLING_FAILED_PRECONDITION);

  pthread_mutex_lock(&w.mutex);
  w.go_on = 1;
  pthread_cond_broadcast(&w.changed);
  pthread_mutex_unlock(&w.mutex);
  nestling_session_destroy(w.session);
  pthread_join(thread, NULL);
  nestling_engine_destroy(engine);
}

static int32_t destroy_inside(void* session, const nestling_token* token) {
  (void)token;
  nestling_session_destroy((nestling_session*)session);
  return 0;
}

static void destroy_inside_a_callback_ends_the_call(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_generate_options options = long_reply(0);
  nestling_generate_result result;
  const int32_t token = 2;
  NESTLING_INIT(&result);
  EXPECT_STATUS(nestling_session_prefill(session, &token, 1), NESTLING_OK);
  EXPECT_STATUS(nestling_session_generate(session, &options, &destroy_inside, session, &result),
                NESTLING_OK);
  EXPECT(result.stop_reason == NESTLING_STOP_CANCELLED);
  nestling_engine_destroy(engine);
}

static int32_t keep_row(void* user, size_t index, const float* logits, size_t vocab_size) {
  float** row = (float**)user;
  (void)index;
  memcpy(*row, logits, vocab_size * sizeof(float));
  return 0;
}

static void truncating_and_evaluating_again_gives_the_same_logits(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  const int32_t tokens[6] = {2, 20, 30, 40, 50, 60};
  const float* logits = NULL;
  size_t vocab_size = 0;
  float *first, *second;
  EXPECT_STATUS(nestling_session_get_logits(session, &logits, NULL), NESTLING_FAILED_PRECONDITION);
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 4), NESTLING_OK);
  EXPECT_STATUS(nestling_session_get_logits(session, &logits, &vocab_size), NESTLING_OK);
  first = (float*)malloc(vocab_size * sizeof(float));
  second = (float*)malloc(vocab_size * sizeof(float));
  memcpy(first, logits, vocab_size * sizeof(float));
  EXPECT_STATUS(nestling_session_prefill(session, tokens + 4, 2), NESTLING_OK);
  EXPECT_STATUS(nestling_session_truncate(session, 3), NESTLING_OK);
  EXPECT(info_of(session).num_tokens == 3);
  EXPECT_STATUS(nestling_session_eval(session, tokens + 3, 1, &keep_row, &second), NESTLING_OK);
  {
    size_t i;
    for (i = 0; i < vocab_size; ++i)
      EXPECT(first[i] - second[i] < 1e-4f && second[i] - first[i] < 1e-4f);
  }
  free(first);
  free(second);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void counters_count(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  nestling_session* session = open_session(engine);
  nestling_generate_options options = long_reply(5);
  nestling_session_counters counters;
  nestling_engine_memory memory;
  nestling_engine_residency residency;
  nestling_process_memory process;
  const int32_t tokens[3] = {2, 20, 30};
  EXPECT_STATUS(nestling_session_prefill(session, tokens, 3), NESTLING_OK);
  EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL), NESTLING_OK);
  NESTLING_INIT(&counters);
  EXPECT_STATUS(nestling_session_get_counters(session, &counters), NESTLING_OK);
  EXPECT(counters.prefill_tokens == 3 && counters.decode_tokens == 5);
  EXPECT(counters.prefill_seconds > 0 && counters.decode_seconds > 0);
  EXPECT(counters.first_token_seconds > 0);
  EXPECT(counters.ple_rows_read >= 7 && counters.ple_bytes_read > counters.ple_rows_read);
  EXPECT(info_of(session).kv_bytes > 0 && info_of(session).num_tokens == 8);
  EXPECT(info_of(session).kv_type == NESTLING_KV_F32);
  NESTLING_INIT(&memory);
  EXPECT_STATUS(nestling_engine_get_memory(engine, &memory), NESTLING_OK);
  EXPECT(memory.mapped_bytes > 0 && memory.loaded_parameters > 0);
  EXPECT(memory.text_parameters >= memory.loaded_parameters && memory.embedding_parameters > 0);
  EXPECT(memory.ple_parameters == 0 && memory.vision_parameters == 0);
  EXPECT(memory.kv_bytes == info_of(session).kv_bytes);
  EXPECT(memory.budget_bytes == 0 && memory.budgeted_bytes > memory.kv_bytes);
  EXPECT(memory.ple_cache_shrinks == 0 && memory.chunk_reductions == 0);
  NESTLING_INIT(&residency);
  EXPECT_STATUS(nestling_engine_get_residency(engine, &residency), NESTLING_OK);
  /* All zero on a system that does not say. */
  if (residency.kv_bytes != 0) {
    EXPECT(residency.text_weight_bytes > 0 && residency.embedding_bytes > 0);
    EXPECT(residency.scratch_bytes > 0 && residency.logits_bytes > 0);
    EXPECT(residency.kv_bytes <= memory.kv_bytes && residency.ple_table_bytes == 0);
  }
  NESTLING_INIT(&process);
  EXPECT_STATUS(nestling_process_get_memory(&process), NESTLING_OK);
  EXPECT(process.resident_bytes > 0 && process.peak_resident_bytes >= process.resident_bytes);
  nestling_session_destroy(session);
  nestling_engine_destroy(engine);
}

static void a_budget_chooses_a_slice_or_names_the_bytes_that_would_do(void) {
  nestling_estimate_options estimate_options;
  NESTLING_INIT(&estimate_options);
  nestling_memory_estimate whole, half;
  NESTLING_INIT(&whole);
  NESTLING_INIT(&half);
  EXPECT_STATUS(nestling_estimate_memory(CHAT_MODEL, NULL, &whole), NESTLING_OK);
  estimate_options.slice = "half";
  EXPECT_STATUS(nestling_estimate_memory(CHAT_MODEL, &estimate_options, &half), NESTLING_OK);
  EXPECT(half.total_bytes < whole.total_bytes);
  EXPECT(whole.total_bytes == whole.mapped_weight_bytes + whole.packed_weight_bytes +
                                  whole.kv_bytes + whole.scratch_bytes + whole.ple_bytes +
                                  whole.vision_bytes + whole.audio_bytes + whole.other_bytes);
  estimate_options.slice = "none";
  EXPECT_STATUS(nestling_estimate_memory(CHAT_MODEL, &estimate_options, &half), NESTLING_NOT_FOUND);
  EXPECT_REFUSED(nestling_estimate_memory(NULL, NULL, &half), "path");
  EXPECT_REFUSED(nestling_estimate_memory(CHAT_MODEL, NULL, NULL), "out_estimate");
  estimate_options.slice = NULL;
  estimate_options.kv_type = 99;
  EXPECT_REFUSED(nestling_estimate_memory(CHAT_MODEL, &estimate_options, &half), "options.kv_type");

  nestling_engine* engine = NULL;
  nestling_engine_options options;
  NESTLING_INIT(&options);
  options.num_threads = 1;
  options.memory_budget_bytes = whole.total_bytes;
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &options, &engine), NESTLING_OK);
  nestling_engine_choice choice;
  NESTLING_INIT(&choice);
  EXPECT_STATUS(nestling_engine_get_choice(engine, &choice), NESTLING_OK);
  EXPECT(strcmp(choice.slice, "half") == 0); /* the only one with a published accuracy */
  EXPECT(strstr(choice.reason, "12.5 %") != NULL);
  EXPECT(choice.estimated_bytes < whole.total_bytes);
  EXPECT(choice.estimated_decode_rate == 0);
  nestling_engine_destroy(engine);

  options.memory_budget_bytes = 1000;
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &options, &engine), NESTLING_OUT_OF_MEMORY);
  EXPECT(engine == NULL);
  EXPECT(strstr(nestling_last_error(), "half needs ") != NULL);
  options.memory_budget_bytes = 0;
  options.target_decode_rate = -1;
  EXPECT_REFUSED(nestling_engine_create(CHAT_MODEL, &options, &engine),
                 "options.target_decode_rate");
  options.target_decode_rate = 0.001;
  EXPECT_STATUS(nestling_engine_create(CHAT_MODEL, &options, &engine), NESTLING_OK);
  EXPECT_STATUS(nestling_engine_get_choice(engine, &choice), NESTLING_OK);
  EXPECT(choice.estimated_decode_rate > 0.001);
  nestling_engine_destroy(engine);
}

static void a_slice_drafts_for_the_whole_model(void) {
  nestling_engine* engine = open_engine(CHAT_MODEL);
  const int32_t prompt[] = {2, 40, 41, 42};
  float last[2] = {0, 0};
  for (int drafts = 0; drafts < 2; ++drafts) {
    nestling_session* session = open_session(engine);
    EXPECT_STATUS(nestling_session_prefill(session, prompt, 4), NESTLING_OK);
    nestling_generate_options options = long_reply(30);
    nestling_generate_result result;
    NESTLING_INIT(&result);
    if (drafts) options.draft_slice = "half";
    EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, &result), NESTLING_OK);
    EXPECT(result.num_tokens == 30);
    EXPECT((result.num_drafted != 0) == drafts);
    EXPECT(result.num_accepted <= result.num_drafted);
    nestling_session_counters counters;
    NESTLING_INIT(&counters);
    EXPECT_STATUS(nestling_session_get_counters(session, &counters), NESTLING_OK);
    EXPECT(counters.draft_tokens == result.num_drafted);
    EXPECT(counters.accepted_tokens == result.num_accepted);
    const float* logits = NULL;
    EXPECT_STATUS(nestling_session_get_logits(session, &logits, NULL), NESTLING_OK);
    last[drafts] = logits[7];
    options.draft_slice = "none";
    EXPECT_STATUS(nestling_session_generate(session, &options, NULL, NULL, NULL),
                  NESTLING_NOT_FOUND);
    options.draft_slice = "half";
    options.draft_tokens = 16;
    EXPECT_REFUSED(nestling_session_generate(session, &options, NULL, NULL, NULL),
                   "options.draft_tokens");
    nestling_session_destroy(session);
  }
  EXPECT(last[0] == last[1]);
  nestling_engine_destroy(engine);
}

int main(void) {
  version_and_names_agree_with_the_header();
  null_is_refused_by_name_or_harmless();
  absurd_numbers_are_refused_by_name();
  structs_of_other_sizes_work_unless_they_set_what_is_unknown();
  copy_out_says_the_size_and_writes_no_part();
  files_that_are_no_models_are_clear_errors();
  a_model_inside_another_file_opens_by_descriptor();
  without_a_tokenizer_only_text_fails();
  a_full_context_is_an_error_with_both_numbers();
  the_order_of_messages_is_kept();
  errors_belong_to_their_thread_and_last_until_its_next_call();
  callbacks_may_look_but_not_run();
  another_thread_cancels_and_the_session_goes_on();
  two_threads_at_once_are_refused_and_destroy_waits();
  destroy_inside_a_callback_ends_the_call();
  truncating_and_evaluating_again_gives_the_same_logits();
  counters_count();
  a_budget_chooses_a_slice_or_names_the_bytes_that_would_do();
  a_slice_drafts_for_the_whole_model();
  if (g_failures != 0) fprintf(stderr, "%d failures\n", g_failures);
  return g_failures != 0;
}
