/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nestling: Gemma 3n on a phone's or laptop's CPU. This header is the whole product; what is not in
 * it is not API. Plain C99, also valid C++. `nestling.hpp` beside it is a thin C++ wrapper.
 *
 *   nestling_engine* engine = NULL;
 *   nestling_session* session = NULL;
 *   if (nestling_engine_create("model.nest", NULL, &engine) != NESTLING_OK ||
 *       nestling_session_create(engine, NULL, &session) != NESTLING_OK ||
 *       nestling_session_add_message(session, NESTLING_ROLE_USER, "Hello",
 *                                    NESTLING_NUL_TERMINATED) != NESTLING_OK ||
 *       nestling_session_generate(session, NULL, print_token, NULL, NULL) != NESTLING_OK) {
 *     fprintf(stderr, "%s\n", nestling_last_error());
 *   }
 *   nestling_session_destroy(session);
 *   nestling_engine_destroy(engine);
 *
 * Conventions, which hold for every function unless its comment says otherwise:
 *
 * Objects   An engine is a loaded model: immutable, shared by any number of sessions, safe to use
 *           from any thread. A session is one conversation: one thread at a time. Sessions never
 *           affect each other. Handles are opaque.
 * Status    Everything that can fail returns a nestling_status. Results come through `out_`
 *           arguments; after an error, handles among them are NULL, and nestling_last_error() has
 *           the words. The object is as it was before the call, unless the comment says more.
 * Ownership `create` gives you an object to `destroy`. A `const char*` that you get is borrowed
 *           until its object dies. What you pass in is copied before the call returns.
 * Options   Structs go by pointer and begin with `struct_size`; NESTLING_INIT(&options) zeroes one
 *           and sets the size. Zero always means "the default", NULL means "all defaults". Structs
 *           only grow at the end, so a program built against an older header keeps working with a
 *           newer library. A newer program works with an older library unless it sets a field that
 *           the library does not know: that is INVALID_ARGUMENT, never ignored.
 * Text      UTF-8 with a length in bytes, or NESTLING_NUL_TERMINATED as the length.
 * Copy-out  Functions with (buffer, capacity, needed): `*out_needed` is set in any case. A NULL
 *           buffer with capacity 0 asks for the size only. A buffer that is too small is
 *           INVALID_ARGUMENT and holds nothing. Text is NUL-terminated; its NUL counts.
 * Hosts     The library never prints, aborts, exits, installs signal handlers, or lets a C++
 *           exception out. Bad files and bad arguments end in a status.
 */
#ifndef NESTLING_NESTLING_H_
#define NESTLING_NESTLING_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(NESTLING_BUILDING)
#define NESTLING_API __declspec(dllexport)
#else
#define NESTLING_API __declspec(dllimport)
#endif
#else
#define NESTLING_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ---- */

/* Of this header. Same major: programs keep working. Before 1.0 every minor version may differ. */
#define NESTLING_VERSION_MAJOR 0
#define NESTLING_VERSION_MINOR 1
#define NESTLING_VERSION_PATCH 0

/* Of the library that is loaded: "0.1.0". Static. */
NESTLING_API const char* nestling_version_string(void);

/* 1 if a program compiled against version `major`.`minor` of this header can use the loaded
 * library, else 0. Call it first when the library is loaded at run time:
 * nestling_abi_check(NESTLING_VERSION_MAJOR, NESTLING_VERSION_MINOR). */
NESTLING_API int32_t nestling_abi_check(int32_t major, int32_t minor);

/* ---- Status ---- */

typedef int32_t nestling_status;
enum {
  NESTLING_OK = 0,
  NESTLING_INVALID_ARGUMENT = 1, /* something that no state makes valid; names the argument */
  NESTLING_NOT_FOUND = 2,        /* a file, a slice */
  NESTLING_IO_ERROR = 3,         /* the operating system said no */
  NESTLING_BAD_MODEL = 4,        /* a file that is damaged, hostile, or not what it says it is */
  NESTLING_UNSUPPORTED = 5,      /* well formed, but this version cannot run it */
  NESTLING_OUT_OF_MEMORY = 6,
  NESTLING_CONTEXT_FULL = 7, /* more tokens than the context has room for */
  NESTLING_CANCELLED = 8,
  NESTLING_FAILED_PRECONDITION = 9, /* a valid call in the wrong state */
  NESTLING_INTERNAL = 10            /* a bug in the library */
};

/* "INVALID_ARGUMENT" and so on; "UNKNOWN" for other values. Static. */
NESTLING_API const char* nestling_status_name(nestling_status status);

/* Why the last call on this thread failed: what, where, found, wanted; one line of English. NULL if
 * it did not fail. Valid until the next call of this library on the same thread. */
NESTLING_API const char* nestling_last_error(void);

/* ---- Conventions in code ---- */

/* Length of a text argument that ends with a NUL. */
#define NESTLING_NUL_TERMINATED ((size_t)-1)

/* Zeroes `*object`, a struct of this header, and sets its struct_size. Use it for every option
 * struct, and for every struct that a call fills. */
#define NESTLING_INIT(object) nestling_init((object), sizeof(*(object)))

/* What NESTLING_INIT calls: `struct_size` is the caller's, so that no more than his is written. */
NESTLING_API void nestling_init(void* object, size_t struct_size);

/* Called during long work with the part that is done, same unit as `total`: one call at a time, but
 * perhaps not on your thread. Must not throw. `user` is the pointer that was given with it. */
typedef void (*nestling_progress_callback)(void* user, uint64_t done, uint64_t total);

/* A remark on something odd that did not stop the work: one line, valid during the callback, which
 * is called as the one above. */
typedef void (*nestling_warning_callback)(void* user, const char* message);

/* ---- Engine ---- */

typedef struct nestling_engine nestling_engine;   /* a loaded model; any thread */
typedef struct nestling_session nestling_session; /* a conversation; one thread at a time */

/* Where the rows of the PLE table come from, one for each token. */
typedef int32_t nestling_ple_mode;
enum {
  NESTLING_PLE_STREAM = 0,   /* from storage through a bounded cache, asked for ahead of use */
  NESTLING_PLE_RESIDENT = 1, /* the whole table is read into memory when the engine is created */
  NESTLING_PLE_MMAP = 2 /* the mapped table, for comparison. Unlike with the others, a file that
                           is truncated while it is in use ends the process (SIGBUS) */
};

/* What the vision and audio towers compute in, whatever the container holds. */
typedef int32_t nestling_tower_precision;
enum {
  NESTLING_TOWER_AUTO = 0, /* int8 if the container has int8 weights, else f32 */
  NESTLING_TOWER_F32 = 1,
  NESTLING_TOWER_INT8 = 2
};

typedef struct nestling_engine_options {
  size_t struct_size;
  /* Threads that compute, the caller's included. 0: one for each performance core that the
   * process may use, within its control group's quota. At most 256. */
  uint32_t num_threads;
  /* Most tokens of one prefill step; fewer (not below 16) where memory_budget_bytes wants it. More
   * is faster for long prompts and takes more memory. 0: the library chooses. */
  uint32_t chunk_tokens;
  /* The MatFormer slice that sessions start with: the name of one in the container, or the path of
   * a JSON file that describes one. NULL or "": the whole model. What a slice does not use is not
   * loaded until a session asks for it. */
  const char* slice;
  /* Bytes of this library's that may be resident, file pages included; 0: no limit. When an engine,
   * a session or a slice would not stay within by estimate (nestling_estimate_memory()), the PLE
   * cache gets smaller, then towers that nobody uses go, then prefill takes smaller steps, as much
   * as it needs and until there is room again; nestling_engine_memory counts it. What cannot fit
   * all the same is OUT_OF_MEMORY, with the number that would do. Unless `slice` names one, the
   * engine chooses a slice: of those that fit (and reach target_decode_rate), the one with the
   * highest published accuracy, of equal ones the one with the most effective parameters; only if
   * none fits otherwise, with a smaller PLE cache and smaller steps. */
  uint64_t memory_budget_bytes;
  /* Tokens per second that the chosen slice should decode with a short context, by estimate: bytes
   * of its weights over the rate at which this machine, measured on the output head, gets through
   * weights; 0: no wish. OUT_OF_MEMORY, with the fastest slice's rate, if none is so fast. */
  double target_decode_rate;
  /* Context of the one session that the budget reckons with; 0: the default of
   * nestling_session_options. */
  uint32_t budget_context_tokens;
  nestling_ple_mode ple_mode;
  /* Most bytes of the cache that sessions share, with NESTLING_PLE_STREAM. 0: 16 MB. Less than one
   * row takes: no cache. */
  uint64_t ple_cache_bytes;
  /* A tower that nothing has used for so long is unloaded, by a thread that exists only once a
   * tower was used. 0: a tower stays until nestling_engine_unload_tower(). */
  double tower_idle_seconds;
  /* Most bytes of soft tokens that the engine keeps of images and sounds that were encoded, so that
   * the same content again costs nothing. 0: 16 MB (8 images). Less than one takes: no cache. */
  uint64_t soft_token_cache_bytes;
  nestling_tower_precision tower_precision;
  /* Cores of the library's own threads, bit i for core i; the calling threads stay where they are.
   * 0: the performance cores. INVALID_ARGUMENT if the process may use none of them. */
  uint64_t cpu_mask;
  /* Folder in which weights that have to be packed for this CPU are kept between runs (the vision
   * tower, f32 weights; weights in tiles never have to be): made on first use, checked, replaced
   * when model, library or CPU change; one file for the decoder and each tower. An app gives its
   * own cache folder. Such a file must not be changed in place while it is used. NULL or "": files
   * that nestling_prepare() made beside the container are used, nothing is written. A folder that
   * cannot be written or a full disk is no error: see nestling_engine_get_packed(). */
  const char* cache_dir;
} nestling_engine_options;

/**
 * Opens a container (.nest) and makes it ready to run.
 *
 * @param path        of the file, UTF-8.
 * @param options     NULL for the defaults.
 * @param out_engine  yours: nestling_engine_destroy(). NULL after an error.
 * @return OK; INVALID_ARGUMENT; NOT_FOUND (no such file or slice); IO_ERROR; BAD_MODEL;
 *         UNSUPPORTED (a container of a newer major version); OUT_OF_MEMORY.
 * Thread safety: any.
 * Cost: reads the header, maps the weights, brings them into the layout that the kernels need.
 *       Blocks on storage.
 */
NESTLING_API nestling_status nestling_engine_create(const char* path,
                                                    const nestling_engine_options* options,
                                                    nestling_engine** out_engine);

/**
 * The same for a container inside an open file, as Android's assets are.
 *
 * @param fd      a descriptor opened for reading; duplicated, so close yours whenever you like.
 * @param offset  of the container's first byte in the file.
 * @param length  of the container in bytes; 0: up to the end of the file.
 * @return as nestling_engine_create(); IO_ERROR also for a descriptor that is not open.
 */
NESTLING_API nestling_status nestling_engine_create_from_fd(int fd, uint64_t offset,
                                                            uint64_t length,
                                                            const nestling_engine_options* options,
                                                            nestling_engine** out_engine);

/* Gives the engine back. NULL is fine. Sessions that still live keep what they need of it; its
 * memory is freed with the last of them. */
NESTLING_API void nestling_engine_destroy(nestling_engine* engine);

/* Ids of special tokens, -1 where the model has none; and what else is fixed when a model is
 * loaded. Values are those in use, not those asked for. */
typedef struct nestling_engine_info {
  size_t struct_size;
  uint32_t vocab_size;         /* token ids and logits: [0, vocab_size) */
  uint32_t max_context_tokens; /* that the model was made for */
  uint32_t num_layers;
  uint32_t hidden_size;
  uint32_t num_slices; /* see nestling_engine_get_slice() */
  uint32_t num_threads;
  uint32_t chunk_tokens;
  int32_t has_tokenizer; /* 0: only token ids work, calls with text are FAILED_PRECONDITION */
  int32_t has_vision;    /* the container has this tower's weights */
  int32_t has_audio;
  int32_t bos_token;
  int32_t eos_token;
  int32_t pad_token;
  /* How the model wants to be sampled: what zero means in nestling_generate_options. */
  int32_t do_sample; /* 0: greedy */
  float temperature;
  uint32_t top_k; /* 0: off */
  float top_p;    /* 1: off */
  uint32_t num_stop_tokens;
  const int32_t* stop_tokens; /* [num_stop_tokens], borrowed from the engine */
  const char* quantisation;   /* for people, borrowed from the engine; "" if unknown */
  const char* source;         /* what the container was made from; the same */
} nestling_engine_info;

/* Fills `*out_info`, whose struct_size you have set (NESTLING_INIT). INVALID_ARGUMENT otherwise. */
NESTLING_API nestling_status nestling_engine_get_info(const nestling_engine* engine,
                                                      nestling_engine_info* out_info);

/* One MatFormer slice of the container. Strings are borrowed from the engine. */
typedef struct nestling_slice_info {
  size_t struct_size;
  const char* name;
  const char* description;       /* may be "" */
  uint64_t effective_parameters; /* of the text decoder, without embedding and PLE table */
  float published_accuracy;      /* MMLU in percent; 0: not published */
  uint32_t num_layers;
} nestling_slice_info;

/* Slice number `index` < num_slices; INVALID_ARGUMENT beyond. */
NESTLING_API nestling_status nestling_engine_get_slice(const nestling_engine* engine, size_t index,
                                                       nestling_slice_info* out_slice);

/* The slice that an engine's sessions start with, and why. Strings are borrowed from the engine. */
typedef struct nestling_engine_choice {
  size_t struct_size;
  const char* slice;            /* name; "whole" for the whole model */
  const char* reason;           /* for people, one line */
  uint64_t estimated_bytes;     /* of the engine and one session: nestling_estimate_memory() */
  double estimated_decode_rate; /* tokens per second; 0: no target was set, nothing was measured */
} nestling_engine_choice;

NESTLING_API nestling_status nestling_engine_get_choice(const nestling_engine* engine,
                                                        nestling_engine_choice* out_choice);

/* What an engine holds, in bytes. Groups do not overlap. */
typedef struct nestling_engine_memory {
  size_t struct_size;
  uint64_t mapped_bytes;        /* the container's sections, address space: clean pages that the
                                   system drops and reads again as it likes */
  uint64_t packed_weight_bytes; /* in the kernels' layout, where the container's is another */
  uint64_t scratch_bytes;       /* activations; kept for the next call */
  uint64_t loaded_parameters;   /* of the text decoder: a count, not bytes */
  uint64_t ple_cache_bytes;     /* most that cached rows of the PLE table will take */
  uint64_t ple_resident_bytes;  /* the whole table, with NESTLING_PLE_RESIDENT */
  uint64_t vision_bytes;        /* weights of the tower, while it is loaded */
  uint64_t audio_bytes;
  uint64_t soft_token_cache_bytes; /* of encoded images and sounds that are kept */
  uint64_t kv_bytes;               /* kv caches of all sessions, as if full */
  /* Parameters by group; text_parameters as the sizes of models are published: what slices have
   * loaded of the decoder, and the key and value weights of layers that use those of others, which
   * no container has. 1,905,495,648 for E2B. */
  uint64_t text_parameters;
  uint64_t embedding_parameters; /* token embedding and output head, one matrix */
  uint64_t ple_parameters;       /* in memory: 0 with NESTLING_PLE_STREAM */
  uint64_t vision_parameters;
  uint64_t audio_parameters;
  uint64_t budget_bytes;   /* memory_budget_bytes */
  uint64_t budgeted_bytes; /* most that everything of now may make resident, by estimate */
  /* How often memory was short, and what was given back then. */
  uint64_t ple_cache_shrinks;
  uint64_t ple_cache_shrunk_bytes;
  uint64_t tower_drops;
  uint64_t tower_dropped_bytes;
  uint64_t chunk_reductions;
  uint64_t chunk_reduced_bytes;
} nestling_engine_memory;

/* Thread safety: any; a snapshot while sessions run. */
NESTLING_API nestling_status nestling_engine_get_memory(const nestling_engine* engine,
                                                        nestling_engine_memory* out_memory);

/* What is resident of an engine and its sessions now, in bytes: pages that this process has mapped.
 * Groups do not overlap; the rest of the process (code, heap, stacks) is not in here. */
typedef struct nestling_engine_residency {
  size_t struct_size;
  uint64_t text_weight_bytes;   /* of the decoder, pages of the file */
  uint64_t embedding_bytes;     /* token embedding and output head, pages of the file */
  uint64_t packed_weight_bytes; /* weights in the kernels' layout */
  uint64_t ple_table_bytes;     /* 0 with NESTLING_PLE_STREAM */
  uint64_t ple_cache_bytes;
  uint64_t kv_bytes;
  uint64_t scratch_bytes; /* activations; during a call also PLE rows */
  uint64_t logits_bytes;
} nestling_engine_residency;

/* All zero where the system does not say. Thread safety: any; a snapshot while sessions run,
 * without the activations of running calls. Cost: about 10 ms for each GB that is mapped. */
NESTLING_API nestling_status nestling_engine_get_residency(
    const nestling_engine* engine, nestling_engine_residency* out_residency);

/* Whose packed weights. */
typedef int32_t nestling_packed_part;
enum { NESTLING_PACKED_DECODER = 0, NESTLING_PACKED_VISION = 1, NESTLING_PACKED_AUDIO = 2 };

typedef int32_t nestling_packed_state;
enum {
  NESTLING_PACKED_NONE = 0, /* no file was asked for or none is there; or nothing had to be packed,
                               or the tower is not loaded */
  NESTLING_PACKED_USED = 1, /* from the file of an earlier run */
  NESTLING_PACKED_MADE = 2, /* packed by this engine, which made the file */
  NESTLING_PACKED_FAILED = 3, /* the file cannot be made: memory is used instead */
  NESTLING_PACKED_HELD = 4    /* the container itself holds them (nestling_prepare(), in_place) */
};

/* How weights that had to be packed are held. */
typedef struct nestling_packed_info {
  size_t struct_size;
  nestling_packed_state state;
  uint64_t mapped_bytes;    /* in the file's pages, which the system drops and reads as it likes */
  uint64_t anonymous_bytes; /* in memory */
  char note[256];           /* why there is no file, or why one was not used; cut to fit */
} nestling_packed_info;

/* INVALID_ARGUMENT: no such part. Thread safety: any. */
NESTLING_API nestling_status nestling_engine_get_packed(const nestling_engine* engine,
                                                        nestling_packed_part part,
                                                        nestling_packed_info* out_info);

/* What the operating system says of the whole process, in bytes; 0 where it does not say. */
typedef struct nestling_process_memory {
  size_t struct_size;
  uint64_t resident_bytes;
  uint64_t peak_resident_bytes;
  uint64_t anonymous_bytes;   /* of the resident ones */
  uint64_t file_backed_bytes; /* of the resident ones */
} nestling_process_memory;

NESTLING_API nestling_status nestling_process_get_memory(nestling_process_memory* out_memory);

/* ---- Text and tokens ---- */

/* Flags of nestling_engine_tokenize(). */
enum {
  NESTLING_TOKENIZE_ADD_BOS = 1,       /* begin with the model's <bos> */
  NESTLING_TOKENIZE_PARSE_SPECIAL = 2, /* "<start_of_turn>" and its like become their tokens. Only
                                          for text that you wrote: a user could open turns */
  NESTLING_TOKENIZE_EXPAND_MEDIA = 4   /* and each "<image_soft_token>" and "<audio_soft_token>"
                                          all that stands for an image and for a clip of sound in a
                                          prompt (newlines, start, placeholders, end). Only together
                                          with PARSE_SPECIAL; UNSUPPORTED without that tower */
};

/**
 * Text to token ids. Copy-out; with a NULL buffer it counts.
 *
 * @param flags            NESTLING_TOKENIZE_*, or-ed; 0 for plain text.
 * @param tokens           [capacity] ids, or NULL.
 * @param out_num_tokens   how many there are.
 * @return OK; INVALID_ARGUMENT (NULL, unknown flag, text that is not UTF-8, buffer too small);
 *         FAILED_PRECONDITION (no tokenizer in the container).
 * Thread safety: any.
 */
NESTLING_API nestling_status nestling_engine_tokenize(const nestling_engine* engine,
                                                      const char* text, size_t text_bytes,
                                                      uint32_t flags, int32_t* tokens,
                                                      size_t capacity, size_t* out_num_tokens);

/**
 * Token ids to text: the inverse. Special tokens become nothing, or their names. Bytes that do not
 * form UTF-8 become U+FFFD. Copy-out.
 *
 * @param tokens         [num_tokens] ids that the vocabulary has.
 * @param show_special   0: special tokens become nothing; 1: their names.
 * @param buffer         [capacity] bytes, or NULL.
 * @param out_needed     bytes, the NUL included.
 * @return OK; INVALID_ARGUMENT (NULL, id out of range, buffer too small); FAILED_PRECONDITION.
 * Thread safety: any.
 */
NESTLING_API nestling_status nestling_engine_detokenize(const nestling_engine* engine,
                                                        const int32_t* tokens, size_t num_tokens,
                                                        int32_t show_special, char* buffer,
                                                        size_t capacity, size_t* out_needed);

/**
 * The vocabulary's name of one token ("\xE2\x96\x81the", "<0x0A>", "<bos>"). Copy-out.
 *
 * @return OK; INVALID_ARGUMENT (NULL, id out of range, buffer too small); FAILED_PRECONDITION.
 * Thread safety: any.
 */
NESTLING_API nestling_status nestling_engine_token_piece(const nestling_engine* engine,
                                                         int32_t token, char* buffer,
                                                         size_t capacity, size_t* out_needed);

/* ---- Session ---- */

/* Numbers in the kv cache. */
typedef int32_t nestling_kv_type;
enum {
  NESTLING_KV_AUTO = 0, /* f32 for a container without quantisation, else f16 */
  NESTLING_KV_F32 = 1,  /* the reference */
  NESTLING_KV_F16 = 2,
  NESTLING_KV_INT8 = 3
};

typedef struct nestling_session_options {
  size_t struct_size;
  uint32_t context_tokens; /* room for prompt and output; 0: the smaller of 4096 and the model's */
  nestling_kv_type kv_type;
  uint32_t chunk_tokens; /* at most the engine's; 0: the engine's */
} nestling_session_options;

typedef struct nestling_estimate_options {
  size_t struct_size;
  const char* slice; /* as in nestling_engine_options */
  uint32_t context_tokens;
  uint32_t chunk_tokens;
  nestling_kv_type kv_type;
  int32_t with_vision; /* 1: with this tower's weights */
  int32_t with_audio;
  nestling_ple_mode ple_mode; /* as in nestling_engine_options */
  uint64_t ple_cache_bytes;
} nestling_estimate_options;

/* Bytes that an engine with one session takes at most, by group. Groups do not overlap. */
typedef struct nestling_memory_estimate {
  size_t struct_size;
  uint64_t mapped_weight_bytes; /* weights read in place: clean pages of the file */
  uint64_t packed_weight_bytes; /* copies in the kernels' layout, where the file's is another */
  uint64_t kv_bytes;            /* with the context full */
  uint64_t scratch_bytes;       /* activations of a full chunk, logits */
  uint64_t ple_bytes;           /* cached rows of the PLE table */
  uint64_t vision_bytes;
  uint64_t audio_bytes;
  uint64_t other_bytes; /* tokenizer, code, bookkeeping */
  uint64_t total_bytes;
} nestling_memory_estimate;

/**
 * What a model would take, before anything of it is loaded.
 *
 * @param options       NULL for the defaults.
 * @param out_estimate  a struct whose struct_size you have set.
 * @return OK; INVALID_ARGUMENT (also: a context or a chunk out of range); NOT_FOUND (no such file
 *         or slice); IO_ERROR; BAD_MODEL; UNSUPPORTED.
 * Thread safety: any.
 * Cost: reads the header only.
 */
NESTLING_API nestling_status nestling_estimate_memory(const char* path,
                                                      const nestling_estimate_options* options,
                                                      nestling_memory_estimate* out_estimate);

/**
 * Begins an empty session.
 *
 * @param out_session  yours: nestling_session_destroy(). NULL after an error.
 * @return OK; INVALID_ARGUMENT (a context longer than the model's, an unknown kv type);
 *         OUT_OF_MEMORY (also: beyond the engine's memory_budget_bytes).
 * Thread safety: any.
 */
NESTLING_API nestling_status nestling_session_create(nestling_engine* engine,
                                                     const nestling_session_options* options,
                                                     nestling_session** out_session);

/* Ends a session. NULL is fine. If another thread is inside a call of it, that call is cancelled
 * and waited for; inside one of the session's own callbacks, the session goes when the call
 * returns. No call may begin after this one. */
NESTLING_API void nestling_session_destroy(nestling_session* session);

/* Values in use, and the state. */
typedef struct nestling_session_info {
  size_t struct_size;
  uint32_t context_tokens;
  uint32_t chunk_tokens;     /* of a prefill step that begins now */
  nestling_kv_type kv_type;  /* never AUTO */
  uint32_t num_tokens;       /* in the session: prefilled, generated, and of messages that wait for
                                the next nestling_session_generate() */
  uint64_t kv_bytes;         /* of the kv cache, whatever it holds */
  const char* slice;         /* name of the slice in use, "whole" for the whole model. Valid until
                                the next nestling_session_set_slice() */
  uint64_t soft_token_bytes; /* of images and sounds in the session; may be shared with the engine's
                                cache */
} nestling_session_info;

/* Allowed inside the session's callbacks. */
NESTLING_API nestling_status nestling_session_get_info(const nestling_session* session,
                                                       nestling_session_info* out_info);

/* Sums since the session was created. */
typedef struct nestling_session_counters {
  size_t struct_size;
  uint64_t prefill_tokens;
  uint64_t decode_tokens;
  double prefill_seconds;
  double decode_seconds;
  double first_token_seconds; /* of the last nestling_session_generate(): from the call, its prefill
                                 of messages included, to its first token */
  uint64_t ple_rows_read;     /* rows of the PLE table, one row a token */
  uint64_t ple_bytes_read;    /* from storage or the system's page cache */
  uint64_t draft_tokens;      /* drafted by nestling_generate_options.draft_slice, */
  uint64_t accepted_tokens;   /* and of those accepted */
  uint64_t ple_hits;          /* rows found in the cache, */
  uint64_t ple_misses;        /* and rows read: each once a step, however many tokens have it */
  double ple_wait_seconds;    /* in which steps had to wait for rows */
  /* Weights that steps read, in bytes: once a step, that is once a decoded token, however many
   * tokens a prefill step has. Divided by time and by the memory's bandwidth, it says how close
   * decode is to what the machine can do. */
  uint64_t weight_bytes_read;
  uint64_t weight_products; /* multiply-accumulates with weights; the same for prefill */
} nestling_session_counters;

/* Allowed inside the session's callbacks. */
NESTLING_API nestling_status nestling_session_get_counters(const nestling_session* session,
                                                           nestling_session_counters* out_counters);

/* Forgets all tokens and messages; keeps memory, options and slice. */
NESTLING_API nestling_status nestling_session_reset(nestling_session* session);

/**
 * Asks the call that runs in another thread (or around this signal handler or callback) to stop: it
 * returns after the layer it is in. Without a running call it does nothing. NULL is fine.
 *
 * Thread safety: any thread, at any time before destroy begins. Async-signal-safe: it stores one
 * atomic flag. It does not touch nestling_last_error().
 */
NESTLING_API void nestling_session_cancel(nestling_session* session);

/**
 * Runs another slice from the next call on. The kv cache is kept, nothing is prefilled again.
 *
 * @param slice  as nestling_engine_options.slice.
 * @return OK; INVALID_ARGUMENT (a slice that the container's weights cannot run); NOT_FOUND;
 *         BAD_MODEL (a JSON file that is not a slice); OUT_OF_MEMORY (also: its weights, with those
 *         loaded before, go beyond memory_budget_bytes). The session keeps its slice then.
 * Cost: may load layers that no session has used yet, from storage.
 */
NESTLING_API nestling_status nestling_session_set_slice(nestling_session* session,
                                                        const char* slice);

/* ---- Tokens in, logits out ---- */

/* These calls treat the session as a plain sequence of tokens. A session that has messages (below)
 * answers them with FAILED_PRECONDITION until it is reset. */

/**
 * Runs prefill: appends tokens to the kv cache.
 *
 * @param tokens      [num_tokens] ids, each in [0, vocab_size). No <bos> is added.
 * @param num_tokens  tokens, not bytes; 0 is a no-op.
 * @return OK; INVALID_ARGUMENT (NULL, id out of range), CONTEXT_FULL (the message has both
 *         numbers): session unchanged. CANCELLED, IO_ERROR: the chunks that were finished stay; see
 *         nestling_session_info.num_tokens. FAILED_PRECONDITION.
 * Cost: reads one PLE row per token; may block on storage.
 */
NESTLING_API nestling_status nestling_session_prefill(nestling_session* session,
                                                      const int32_t* tokens, size_t num_tokens);

/* Receives logits [vocab_size] f32, soft-capped, that follow token number `index` of the call.
 * Valid during the call. Return 0 to go on; anything else ends the call with CANCELLED. */
typedef int32_t (*nestling_logits_callback)(void* user, size_t index, const float* logits,
                                            size_t vocab_size);

/**
 * Prefill that shows the logits of every token, in order. Slower than nestling_session_prefill(),
 * which computes no more than the last token needs.
 *
 * @param callback  on the calling thread; may use nestling_session_cancel() and the getters.
 * @return as nestling_session_prefill().
 */
NESTLING_API nestling_status nestling_session_eval(nestling_session* session, const int32_t* tokens,
                                                   size_t num_tokens,
                                                   nestling_logits_callback callback, void* user);

/**
 * Logits that the next token would be sampled from.
 *
 * @param out_logits      [vocab_size] f32, soft-capped; borrowed until the next call on the
 * session.
 * @param out_vocab_size  may be NULL.
 * @return OK; FAILED_PRECONDITION (empty session); CANCELLED, IO_ERROR (session unchanged).
 * Cost: the output head, once after a change of the session, and memory for its result, which
 * generating with top_k or greedily does not need. Runs the last token if it was generated and not
 * run yet.
 */
NESTLING_API nestling_status nestling_session_get_logits(nestling_session* session,
                                                         const float** out_logits,
                                                         size_t* out_vocab_size);

/**
 * Forgets all but the first `num_tokens` tokens.
 *
 * @return OK; INVALID_ARGUMENT (the session has fewer); FAILED_PRECONDITION (a sliding-window layer
 *         no longer holds the window before that point: reset and prefill instead).
 */
NESTLING_API nestling_status nestling_session_truncate(nestling_session* session,
                                                       size_t num_tokens);

/* ---- Messages ---- */

typedef int32_t nestling_role;
enum {
  NESTLING_ROLE_USER = 1,
  NESTLING_ROLE_ASSISTANT = 2, /* a reply from elsewhere: restores a history, or is a beginning that
                                  nestling_session_generate() continues */
  NESTLING_ROLE_SYSTEM = 3     /* first message only; goes in front of the first user message */
};

/**
 * Adds a message to the conversation, in the model's chat template. History stays in the kv cache:
 * each message is tokenised and run once. User and assistant take turns, the user begins; replies
 * of nestling_session_generate() are in the history already, finished or not.
 *
 * The session must be empty or hold only messages. Text is taken literally: "<end_of_turn>" in it
 * is thirteen characters, not a token. White space around user and assistant text is dropped.
 *
 * @return OK; INVALID_ARGUMENT (NULL, unknown role, text that is not UTF-8); CONTEXT_FULL (the
 *         message has both numbers); FAILED_PRECONDITION (not this role's turn, raw tokens in the
 *         session, a container without a tokenizer); UNSUPPORTED (a tokenizer without the
 *         template's tokens). After any error the session is unchanged.
 * Cost: tokenises only. The next nestling_session_generate() runs prefill.
 */
NESTLING_API nestling_status nestling_session_add_message(nestling_session* session,
                                                          nestling_role role, const char* text,
                                                          size_t text_bytes);

/* ---- Images and sounds ---- */

/* A tower encodes images or sounds to soft tokens: rows that stand in a prompt in the place of
 * placeholder tokens. It is loaded when it is first needed, and not at all by text. */
typedef int32_t nestling_tower;
enum { NESTLING_TOWER_VISION = 0, NESTLING_TOWER_AUDIO = 1 };

typedef int32_t nestling_tower_state;
enum {
  NESTLING_TOWER_ABSENT = 0,   /* the container has none */
  NESTLING_TOWER_UNLOADED = 1, /* nothing of it is in memory */
  NESTLING_TOWER_MAPPED = 2,   /* its section is mapped, it is being made ready */
  NESTLING_TOWER_READY = 3
};

typedef struct nestling_tower_info {
  size_t struct_size;
  nestling_tower_state state;
  uint32_t num_positions; /* placeholders of one image, or one clip: 256, 188. 0: absent */
  uint32_t image_width;   /* that a prepared image has, in pixels; 0 for audio */
  uint32_t image_height;
  int32_t placeholder_token;   /* -1: none */
  nestling_status load_status; /* of the last load, also of one in the background */
  uint64_t min_samples;        /* of a sound, and */
  uint64_t clip_samples;       /* most of one clip: 480,000. 0 for vision */
  uint64_t weight_bytes;       /* in memory now; 0 unless ready */
  uint64_t num_loads;
  uint64_t num_encodes;  /* images, or clips */
  double load_seconds;   /* of the last load */
  double encode_seconds; /* sum */
} nestling_tower_info;

/* Never waits for a tower that is being loaded. INVALID_ARGUMENT: no such tower. Any thread. */
NESTLING_API nestling_status nestling_engine_get_tower_info(const nestling_engine* engine,
                                                            nestling_tower tower,
                                                            nestling_tower_info* out_info);

enum { NESTLING_LOAD_IN_BACKGROUND = 1 };

/**
 * Loads a tower before it is needed. Without this, the first image or sound does.
 *
 * @param flags  NESTLING_LOAD_*: in the background the call returns at once; see
 *               nestling_tower_info.load_status. What needs the tower meanwhile waits for it.
 * @return OK, also if it is loaded; INVALID_ARGUMENT; UNSUPPORTED (the container has no such tower,
 *         or one that this version cannot run); BAD_MODEL, OUT_OF_MEMORY, IO_ERROR: nothing of it
 *         stays in memory, the engine is as it was.
 * Thread safety: any.
 * Cost: reads the tower's section, brings it into the kernels' layout. Blocks on storage.
 */
NESTLING_API nestling_status nestling_engine_load_tower(nestling_engine* engine,
                                                        nestling_tower tower, uint32_t flags);

/**
 * Gives a tower's memory back. What is being encoded ends first, in its own thread; audio streams
 * keep the tower until they are finished or destroyed. The next use loads it again.
 *
 * @return OK, also if it was not loaded; INVALID_ARGUMENT.
 * Thread safety: any.
 */
NESTLING_API nestling_status nestling_engine_unload_tower(nestling_engine* engine,
                                                          nestling_tower tower);

/* The engine's cache of soft tokens. */
typedef struct nestling_soft_token_cache_info {
  size_t struct_size;
  uint64_t capacity_bytes;
  uint64_t used_bytes;
  uint64_t num_entries;
  uint64_t hits;   /* images and sounds that were not encoded again */
  uint64_t misses; /* and those that were encoded */
} nestling_soft_token_cache_info;

NESTLING_API nestling_status nestling_engine_get_soft_token_cache_info(
    const nestling_engine* engine, nestling_soft_token_cache_info* out_info);

/* Forgets what the cache holds. Sessions keep what they have. */
NESTLING_API nestling_status nestling_engine_clear_soft_token_cache(nestling_engine* engine);

/* A piece of a message: text, or an image or a sound in one of several forms. */
typedef int32_t nestling_part_type;
enum {
  /* data: UTF-8, size: bytes or NESTLING_NUL_TERMINATED. */
  NESTLING_PART_TEXT = 1,
  /* data: pixels, rows from the top, size: bytes; width, height, stride_bytes, pixel_format.
   * Resized as the model wants it, the aspect ratio not kept. */
  NESTLING_PART_IMAGE = 2,
  /* data: const float* [3, height, width] in 0 .. 1, size: floats; width and height as in
   * nestling_tower_info. */
  NESTLING_PART_PREPARED_IMAGE = 3,
  /* data: const float* mono at 16 kHz, full scale -1 .. 1, size: samples. */
  NESTLING_PART_AUDIO = 4,
  /* data: const float* [n, hidden] as nestling_engine_encode() gives, size: floats; n:
   * num_positions. */
  NESTLING_PART_IMAGE_TOKENS = 5,
  /* The same of one clip; n: 1 to num_positions. */
  NESTLING_PART_AUDIO_TOKENS = 6,
  /* data: const nestling_audio_stream* that is finished; size: 0. */
  NESTLING_PART_AUDIO_STREAM = 7
};

typedef int32_t nestling_pixel_format;
enum {
  NESTLING_PIXELS_RGB8 = 0,
  NESTLING_PIXELS_RGBA8 = 1 /* alpha is dropped, not blended */
};

/* What does not belong to the type is 0. Data is borrowed until the call returns. Several of them,
 * as an array: struct_size of the first is the distance from one to the next, all have the same. */
typedef struct nestling_part {
  size_t struct_size;
  nestling_part_type type;
  nestling_pixel_format pixel_format;
  const void* data;
  size_t size;
  uint32_t width; /* pixels */
  uint32_t height;
  size_t stride_bytes; /* from one row to the next; 0: rows lie side by side */
} nestling_part;

/* What an image or a sound takes in a prompt. */
typedef struct nestling_media_size {
  size_t struct_size;
  uint32_t num_clips;       /* 1 for an image; a sound longer than 30 s is several */
  uint32_t num_soft_tokens; /* that nestling_engine_encode() gives */
  uint32_t num_positions;   /* placeholder tokens: 256 for an image; 188 for each clip, whose rest
                               is padding */
} nestling_media_size;

/* Checks a part as the calls that take one do, without encoding it. Errors as
 * nestling_engine_encode(). */
NESTLING_API nestling_status nestling_engine_measure_media(const nestling_engine* engine,
                                                           const nestling_part* media,
                                                           nestling_media_size* out_size);

/**
 * Encodes an image or a sound to soft tokens. Copy-out; with a NULL buffer it counts, and encodes
 * nothing.
 *
 * A sound of more than 30 s is cut into clips of 30 s, the rest in the last; a rest of less than
 * one second takes its missing part from the clip before. Their soft tokens follow each other,
 * without padding.
 *
 * @param media           not a text.
 * @param buffer          [capacity] f32, receives [soft tokens, hidden_size], or NULL.
 * @param out_num_values  floats: soft tokens times hidden_size.
 * @return OK; INVALID_ARGUMENT (an image without pixels, with more than 100 million or a side above
 * 65,535, a row that does not fit its stride, too little data, a sound of fewer than 513 samples, a
 * sample that is not a finite number); UNSUPPORTED (no such tower); and errors of
 * nestling_engine_load_tower().
 * Thread safety: any; images wait for each other, sounds do not.
 * Cost: loads the tower if it is not. Seconds for a large model.
 */
NESTLING_API nestling_status nestling_engine_encode(nestling_engine* engine,
                                                    const nestling_part* media, float* buffer,
                                                    size_t capacity, size_t* out_num_values);

/**
 * nestling_session_add_message() with a message of several parts, in order. Each text is taken
 * literally and its white space at both ends dropped. Images and sounds are for users' messages
 * only; a system message is one text.
 *
 * @param parts      [num_parts]; at least one.
 * @return as nestling_session_add_message() and nestling_engine_encode(). After any error the
 * session is unchanged. Cost: encodes images and sounds that the cache does not have; CANCELLED
 * between two of them. The next nestling_session_generate() runs prefill.
 */
NESTLING_API nestling_status nestling_session_add_message_parts(nestling_session* session,
                                                                nestling_role role,
                                                                const nestling_part* parts,
                                                                size_t num_parts);

/**
 * nestling_session_prefill() for tokens with placeholders: those of images and those of sounds take
 * the soft tokens of `media`, in order, num_positions for each image and each clip
 * (nestling_engine_measure_media()).
 *
 * @param media  [num_media], no texts.
 * @return as nestling_session_prefill() and nestling_engine_encode(); INVALID_ARGUMENT also if
 * there are more or fewer placeholders than the media have. nestling_session_prefill() and _eval()
 * are the same with no media: a placeholder is INVALID_ARGUMENT if the container has the tower.
 */
NESTLING_API nestling_status nestling_session_prefill_media(nestling_session* session,
                                                            const int32_t* tokens,
                                                            size_t num_tokens,
                                                            const nestling_part* media,
                                                            size_t num_media);

/* nestling_session_eval() with media. */
NESTLING_API nestling_status nestling_session_eval_media(
    nestling_session* session, const int32_t* tokens, size_t num_tokens, const nestling_part* media,
    size_t num_media, nestling_logits_callback callback, void* user);

/* ---- Sound while it is recorded ---- */

typedef struct nestling_audio_stream nestling_audio_stream; /* one thread at a time */

/**
 * Begins a recording that is encoded while it goes on. Loads the audio tower if it is not. Holds
 * the tower and the engine.
 *
 * @return OK; INVALID_ARGUMENT; UNSUPPORTED; errors of nestling_engine_load_tower().
 */
NESTLING_API nestling_status nestling_audio_stream_create(nestling_engine* engine,
                                                          nestling_audio_stream** out_stream);

/**
 * The next samples, any number of them: mono, 16 kHz, full scale -1 .. 1. A recording of more than
 * 30 s goes on in another clip, cut exactly as nestling_engine_encode() would cut the whole;
 * nothing is left out.
 *
 * @return OK; INVALID_ARGUMENT (a sample that is not a finite number: stream unchanged);
 * FAILED_PRECONDITION (finished, or failed before); OUT_OF_MEMORY, INTERNAL: the stream is of no
 * more use. Cost: encodes what is complete, about every 2.5 s of sound.
 */
NESTLING_API nestling_status nestling_audio_stream_push(nestling_audio_stream* stream,
                                                        const float* samples, size_t num_samples);

/**
 * Ends the recording; the stream lets go of the tower and can be a NESTLING_PART_AUDIO_STREAM of
 * any number of messages.
 *
 * @return OK; INVALID_ARGUMENT (fewer than 513 samples: it goes on); FAILED_PRECONDITION.
 */
NESTLING_API nestling_status nestling_audio_stream_finish(nestling_audio_stream* stream);

typedef struct nestling_audio_stream_info {
  size_t struct_size;
  uint64_t num_samples;
  uint32_t num_clips;       /* 0 until it is finished */
  uint32_t num_soft_tokens; /* the same */
} nestling_audio_stream_info;

NESTLING_API nestling_status nestling_audio_stream_get_info(const nestling_audio_stream* stream,
                                                            nestling_audio_stream_info* out_info);

/* NULL is fine. */
NESTLING_API void nestling_audio_stream_destroy(nestling_audio_stream* stream);

/* ---- Generation ---- */

typedef int32_t nestling_sampling;
enum {
  NESTLING_SAMPLING_DEFAULT = 0, /* as the model's generation configuration says */
  NESTLING_SAMPLING_GREEDY = 1,  /* the most likely token; temperature, top_k, top_p, min_p and seed
                                    do not matter */
  NESTLING_SAMPLING_RANDOM = 2
};

#define NESTLING_TOP_K_OFF (-1)

typedef struct nestling_generate_options {
  size_t struct_size;
  uint32_t max_tokens; /* 0: until a stop or a full context */
  nestling_sampling sampling;
  float temperature;          /* 0: the model's. > 0; below 1 is more sure, above is more varied */
  int32_t top_k;              /* 0: the model's; NESTLING_TOP_K_OFF, or the k most likely tokens */
  float top_p;                /* 0: the model's; (0, 1], 1 is off */
  float min_p;                /* 0: off; tokens less likely than min_p times the best are dropped */
  float repetition_penalty;   /* 0: off; > 0, 1 is off: divides positive logits, multiplies negative
                                 ones, of the session's recent tokens. Counts for greedy too */
  uint32_t repetition_window; /* how many tokens are recent; 0: 64 */
  int32_t ignore_stop_tokens; /* 1: run on past the model's end of turn; for benchmarks */
  uint64_t seed;              /* the same seed, the same tokens; 0: a new one for each call */
  const int32_t* stop_tokens; /* [num_stop_tokens]; NULL: the model's */
  size_t num_stop_tokens;
  const char* const* stop_strings; /* [num_stop_strings] NUL-terminated; output ends before any */
  size_t num_stop_strings;
  /* Self-speculative decoding: this slice (as in nestling_engine_options) drafts tokens, the
   * session's own verifies them in one step on the same weights and kv cache. Greedy output stays
   * the same; sampled output keeps its distribution, but is another one for the same seed. Faster
   * only where the draft is much cheaper and mostly right. NULL or "": off. */
  const char* draft_slice;
  uint32_t draft_tokens; /* most drafts of a step, 1 to 15; fewer after rejections. 0: 4 */
} nestling_generate_options;

/* One step of the output. The library fills it; it is valid during the callback. */
typedef struct nestling_token {
  size_t struct_size;
  int32_t id;       /* -1: no new token, only text that was held back until the end */
  const char* text; /* text_bytes of whole UTF-8 characters, NOT NUL-terminated. Empty while a
                       character or a possible stop string is incomplete, and without a
                       tokenizer */
  size_t text_bytes;
} nestling_token;

/* Receives each token but a stop token, on the calling thread, as soon as it exists. Return 0 to go
 * on; anything else stops (NESTLING_STOP_CALLBACK). May use nestling_session_cancel() and the
 * getters. */
typedef int32_t (*nestling_token_callback)(void* user, const nestling_token* token);

typedef int32_t nestling_stop_reason;
enum {
  NESTLING_STOP_MAX_TOKENS = 0,
  NESTLING_STOP_TOKEN = 1, /* the model ended its turn, or one of stop_tokens */
  NESTLING_STOP_STRING = 2,
  NESTLING_STOP_CONTEXT_FULL = 3, /* no room for another token */
  NESTLING_STOP_CANCELLED = 4,
  NESTLING_STOP_CALLBACK = 5
};

/* "max_tokens", "stop_token", "stop_string", "context_full", "cancelled", "callback"; "unknown" for
 * other values. Static. */
NESTLING_API const char* nestling_stop_reason_name(nestling_stop_reason reason);

typedef struct nestling_generate_result {
  size_t struct_size;
  nestling_stop_reason stop_reason;
  uint32_t num_tokens; /* generated, a stop token included */
  uint64_t seed;       /* that was used */
  uint32_t num_drafted;
  uint32_t num_accepted; /* of the drafts */
} nestling_generate_result;

/**
 * Generates tokens after what the session holds: for a session with messages, the model's reply to
 * the last one (prefilling what waits first; called again after max_tokens, a cancel or a
 * callback's stop, it continues the reply); else a continuation of the tokens.
 *
 * @param options     NULL for the model's own defaults.
 * @param callback    NULL if only the result or the history is of interest.
 * @param out_result  NULL, or a struct whose struct_size you have set.
 * @return OK, also when stopped early: see stop_reason; INVALID_ARGUMENT; FAILED_PRECONDITION
 *         (an empty session, or a reply that is complete: add a message); IO_ERROR, OUT_OF_MEMORY:
 *         what was generated stays, and the call may be repeated.
 * Cost: reads one PLE row per token; may block on storage.
 */
NESTLING_API nestling_status nestling_session_generate(nestling_session* session,
                                                       const nestling_generate_options* options,
                                                       nestling_token_callback callback, void* user,
                                                       nestling_generate_result* out_result);

/* ---- Containers ---- */

/* Names of weight formats, where an option wants one: "f32", "q8c" (int8, a scale per channel),
 * "q4c" (4 bit, a scale per channel), "q4b32" (4 bit, a scale per 32 inputs). The embedding and the
 * PLE table may also be "f16" and "bf16". */

typedef struct nestling_pack_options {
  size_t struct_size;
  const char* quantisation;       /* of the decoder's matrices; NULL: "q4b32" */
  const char* ple_quantisation;   /* of the PLE table; NULL: as `quantisation` */
  const char* embed_quantisation; /* of the token embedding and output head; NULL: the same */
  const char* tower_quantisation; /* of the vision and audio towers: "f32", "f16", "bf16" or "q8c";
                                     NULL: "f32" if `quantisation` is, else "bf16" */
  const char* slice;              /* name or JSON file: writes only this slice, as a model of its
                                     own; NULL: the whole model */
  const char* const* add_slices;  /* [num_add_slices] JSON files of custom slices to store */
  size_t num_add_slices;
  uint32_t num_threads;         /* 0: one for each core; at most 1024 */
  int32_t allow_unknown_config; /* 1: a key of config.json that this version does not know, and
                                   that might change the arithmetic, is a warning, no error */
  nestling_progress_callback progress; /* NULL: none. In bytes of the container */
  nestling_warning_callback warning;   /* NULL: none */
  void* user;                          /* of both */
} nestling_pack_options;

/**
 * Converts a model to a container. The result appears under its name when it is complete; an error
 * leaves nothing behind and an older file of that name as it was.
 *
 * @param source  a Hugging Face folder (config.json, *.safetensors, tokenizer.model), or a GGUF
 * file of architecture gemma3n.
 * @param output  file to write.
 * @return OK; INVALID_ARGUMENT; NOT_FOUND; IO_ERROR (also: storage full); BAD_MODEL; UNSUPPORTED
 *         (another architecture, an unknown key of the configuration that changes the arithmetic);
 *         OUT_OF_MEMORY.
 * Thread safety: any.
 * Cost: reads and writes the whole model; memory does not grow with it; minutes for a large one;
 * blocks on storage.
 */
NESTLING_API nestling_status nestling_pack(const char* source, const char* output,
                                           const nestling_pack_options* options);

typedef struct nestling_synthesize_options {
  size_t struct_size;
  const char* preset;       /* "e2b", "e4b": real shapes; "tiny": for tests. NULL: "tiny" */
  const char* quantisation; /* as in nestling_pack_options; NULL: "q4b32" */
  const char* ple_quantisation;
  const char* embed_quantisation;
  const char* tower_quantisation;
  uint64_t seed; /* the same seed, the same bytes; 0: 1 */
  uint32_t num_threads;
  nestling_progress_callback progress;
  void* user;
} nestling_synthesize_options;

/* Writes a container with random weights: for benchmarks and tests. Otherwise as nestling_pack().
 */
NESTLING_API nestling_status nestling_synthesize(const char* output,
                                                 const nestling_synthesize_options* options);

typedef int32_t nestling_prepare_outcome;
enum {
  NESTLING_PREPARE_DONE = 0,    /* files or the container are as they were asked for */
  NESTLING_PREPARE_NOTHING = 1, /* with in_place: nothing has to be packed. The container at `path`
                                   is as it was; `output`, if any, is a copy */
  NESTLING_PREPARE_ALREADY = 2  /* the same: it was prepared in place for this CPU before */
};

typedef struct nestling_prepare_options {
  size_t struct_size;
  const char* cache_dir; /* as in nestling_engine_options; NULL or "": beside the container */
  const char* slice;     /* the same: of the decoder, what this slice needs */
  uint32_t num_threads;
  nestling_tower_precision tower_precision; /* as engines will ask for */
  nestling_progress_callback progress;      /* NULL: none. In bytes of the container */
  void* user;
  /* Nonzero: writes a container that holds the packed form instead of the weights that were packed,
   * so that none of them is on the disk twice. It then runs on CPUs of this kind and with this
   * version of the packing library only (elsewhere: UNSUPPORTED when the part is loaded), and its
   * towers in one precision; keep the original to go elsewhere. Everything is packed: no `slice`,
   * and no `cache_dir`. */
  int32_t in_place;
  /* With in_place: where the container goes. NULL or "": it replaces the one at `path`, at once and
   * when it is complete; after an error, or if the process ends before, that one is as it was. */
  const char* output;
  nestling_prepare_outcome* out_outcome; /* NULL, or set if the call is OK */
} nestling_prepare_options;

/**
 * Packs what has to be packed for this CPU, decoder and towers, into files, so that engines start
 * without doing it. Files that are there are checked completely; damaged and stale ones are made
 * anew, those of the model's earlier contents removed. With `in_place` into the container itself:
 * see there.
 *
 * @param path     of the container, UTF-8.
 * @param options  NULL for the defaults.
 * @return OK; errors of nestling_engine_create() and nestling_engine_load_tower(); IO_ERROR (the
 *         folder cannot be written, storage full); UNSUPPORTED (also: with in_place, a container
 *         that was prepared in place for another CPU, or with another tower_precision).
 * Thread safety: any; two processes at once do not disturb each other.
 * Cost: seconds for a large tower; takes as much storage as the packed weights. With in_place it
 *       reads and writes the whole model, and while it runs both containers are on the disk; memory
 *       is that of the weights of one block and thread. Blocks on storage.
 */
NESTLING_API nestling_status nestling_prepare(const char* path,
                                              const nestling_prepare_options* options);

/**
 * Checks a container completely: what opening checks (bounds, shapes, alignment), and the checksum
 * of every section.
 *
 * @param progress  NULL, or called with bytes.
 * @return OK; BAD_MODEL (the message says what is wrong where); NOT_FOUND; IO_ERROR; UNSUPPORTED.
 * Thread safety: any.
 * Cost: reads the whole file.
 */
NESTLING_API nestling_status nestling_verify(const char* path, nestling_progress_callback progress,
                                             void* user);

/**
 * Describes a container as one JSON object: configuration, sections, tensors' formats, slices,
 * parameters per group, what is packed for which CPU. Copy-out.
 *
 * @param out_needed  bytes, the NUL included.
 * @return OK; INVALID_ARGUMENT (NULL, buffer too small); as nestling_verify().
 * Thread safety: any.
 * Cost: reads the header only.
 */
NESTLING_API nestling_status nestling_inspect(const char* path, char* buffer, size_t capacity,
                                              size_t* out_needed);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* NESTLING_NESTLING_H_ */
