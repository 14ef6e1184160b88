// vitlet: int8 and f16 Vision Transformers on ARM CPUs, from C and C++ (vitlet.hpp wraps this header for C++).
//
// Made by cbindgen from capi/src; do not edit.
//
// How to classify a picture. All memory is yours: nothing here allocates, holds globals or starts threads (but for
// vitlet_pool_start()).
//
//     #include <vitlet.h>
//
//     // 1. A model: its struct in your memory, its weights where the file's bytes are.
//     vitlet_error error;
//     vitlet_model *model;
//     void *model_memory = aligned_alloc(VITLET_ALIGNMENT, VITLET_MODEL_BYTES);
//     if (vitlet_model_open(model_memory, VITLET_MODEL_BYTES, "model.gguf", &model, &error) != VITLET_STATUS_OK) {
//         fprintf(stderr, "error: model.gguf: %s\n", error.text);
//         return 1;
//     }
//
//     // 2. A session: the memory that runs need, known before the first run. Zeros are good defaults.
//     vitlet_options options = {0};
//     size_t bytes;
//     vitlet_session_bytes(model, &options, &bytes, &error);
//     void *memory = aligned_alloc(VITLET_ALIGNMENT, bytes);
//     vitlet_session *session;
//     vitlet_session_open(model, &options, memory, bytes, &session, &error);
//
//     // 3. A picture, as the camera has it. It is resized, cropped and normalized as the model was trained.
//     vitlet_picture picture = {
//         .format = VITLET_FORMAT_NV12, .width = 1920, .height = 1080, .planes = {luma, chroma},
//     };
//
//     // 4. Run, any number of times. Each of these functions may fail; NULL in place of &error is allowed.
//     if (vitlet_run_picture(session, &picture, &error) != VITLET_STATUS_OK) {
//         fprintf(stderr, "error: picture: %s\n", error.text);
//         return 1;
//     }
//     size_t len;
//     const float *logits = vitlet_output_data(session, 0, &len);
//
//     // 5. What is it?
//     vitlet_guess best[5];
//     size_t count;
//     vitlet_top_k(model, logits, len, best, sizeof best[0], 5, &count);
//     char label[80];
//     vitlet_model_label(model, best[0].index, label, sizeof label);
//     printf("%s %.1f %%\n", label, 100 * best[0].probability);
//
//     // 6. Sessions need no closing; a model that was opened from a file is unmapped.
//     free(memory);
//     vitlet_model_close(model);
//     free(model_memory);
//
// Threads: one model serves any number of sessions on any threads; a session serves one thread at a time. To make one
// run faster, let several threads work on it: `options.threads = 4; options.executor = {my_run, my_context};` uses
// yours, vitlet_pool_start() starts some.
//
// Errors: functions return a vitlet_status, and write why into a vitlet_error, where they take one. NULL and misaligned
// pointers, wrong sizes and broken files are statuses; nothing here ends the process, except a bug in the library (a
// panic aborts, it never unwinds into your code) or an exception thrown out of an executor's callback.
//
// Versions: this is interface version 1 (libvitlet.so.1). Later versions only add: functions, numbers at the end of
// enums, fields at the end of structs that begin with their size. That size is 0 (`{0}`: the fields of version 1) or
// sizeof the struct, for which later fields are read, too. Structs without a size stay as they are. docs/c-api.md says
// what programs for version 0.1 have to change.
//
// Without an operating system, link the libvitlet.a that is built without std: it needs no allocator and no C library.
// Bring the model's bytes with vitlet_model_parse(), and enable FP/SIMD first. `vitlet inspect --c-header` prints the
// bytes that arrays for a model and its sessions need.


#ifndef VITLET_H
#define VITLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of an error's text, the NUL included.
#define VITLET_ERROR_TEXT_BYTES 252

// Bytes of memory, at a multiple of VITLET_ALIGNMENT, for a model. (The weights stay where the file's bytes are.)
#define VITLET_MODEL_BYTES 1024

// The boundary, in bytes, on which models and the memory for handles start.
#define VITLET_ALIGNMENT 64

// What functions return; vitlet_status_string() says it in words.
typedef enum {
    // Done.
    VITLET_STATUS_OK = 0,
    // A pointer is NULL that must not be.
    VITLET_STATUS_NULL,
    // A pointer is not aligned: models' bytes and memory to VITLET_ALIGNMENT, everything else as C aligns it.
    VITLET_STATUS_MISALIGNED,
    // The memory is smaller than vitlet_model_bytes() or vitlet_session_bytes() says.
    VITLET_STATUS_MEMORY,
    // A number is not one of its enum, an index is out of range, a struct's size is not that of any version, or a
    // field is set that this library is too old for.
    VITLET_STATUS_VALUE,
    // The file cannot be opened or mapped.
    VITLET_STATUS_FILE,
    // Not a model file: no GGUF magic at the start.
    VITLET_STATUS_NOT_GGUF,
    // The model file ends too early.
    VITLET_STATUS_TRUNCATED,
    // A GGUF file that is not well-formed, or of another version.
    VITLET_STATUS_MALFORMED,
    // A GGUF file of another architecture, or a model that this library is too old for.
    VITLET_STATUS_UNSUPPORTED,
    // The model's metadata, hyperparameters or tensors are not what they should be; `vitlet inspect FILE` says which.
    VITLET_STATUS_MODEL,
    // The options ask for more than 256 threads, for another number than the executor has, for a largest picture that
    // is too large, or for more memory than there can be.
    VITLET_STATUS_OPTIONS,
    // This CPU has no kernels of that name.
    VITLET_STATUS_KERNELS,
    // An array has the wrong number of elements.
    VITLET_STATUS_LENGTH,
    // An edge of the picture is 0 or more than 2^24 pixels.
    VITLET_STATUS_PICTURE_SIZE,
    // A stride is shorter than a row, or longer than memory can be.
    VITLET_STATUS_PICTURE_STRIDE,
    // The region is not inside the picture.
    VITLET_STATUS_PICTURE_REGION,
    // The picture is larger than the session's largest.
    VITLET_STATUS_PICTURE_TOO_LARGE,
    // The executor returned before the work was done.
    VITLET_STATUS_EXECUTOR,
    // The system could not start a thread, or does not let it have its CPUs or its priority.
    VITLET_STATUS_THREADS,
    // The flag of vitlet_options.stop ended the run.
    VITLET_STATUS_STOPPED,
} vitlet_status;

// How pixels lie in memory. The chroma of the last three stands for two pixels of a row or for 2 x 2 pixels, and is
// repeated.
typedef enum {
    // R, G, B.
    VITLET_FORMAT_RGB8 = 0,
    // B, G, R, as OpenCV has it.
    VITLET_FORMAT_BGR8,
    // R, G, B and a byte that is ignored.
    VITLET_FORMAT_RGBA8,
    // One byte, repeated for R, G and B.
    VITLET_FORMAT_GRAY8,
    // Y U Y V for two pixels (V4L2's YUYV).
    VITLET_FORMAT_YUYV,
    // A plane of Y, and one of U V pairs with half as many rows.
    VITLET_FORMAT_NV12,
    // Planes of Y, U and V; the last two half as wide and half as high.
    VITLET_FORMAT_I420,
} vitlet_format;

// By how much a picture is turned clockwise before the network sees it.
typedef enum {
    // Not at all.
    VITLET_ROTATION_NONE = 0,
    // Clockwise, a quarter.
    VITLET_ROTATION_CLOCKWISE90 = 90,
    // Upside down.
    VITLET_ROTATION_CLOCKWISE180 = 180,
    // Counterclockwise, a quarter.
    VITLET_ROTATION_CLOCKWISE270 = 270,
} vitlet_rotation;

// What Y, U and V mean: the matrix, and whether black and white are 16 and 235 or, full range, 0 and 255.
typedef enum {
    // ITU-R BT.601: most cameras, unless told otherwise.
    VITLET_YUV_BT601 = 0,
    // BT.601 with full range: JPEG's.
    VITLET_YUV_BT601_FULL,
    // BT.709: high definition video.
    VITLET_YUV_BT709,
    // BT.709 with full range.
    VITLET_YUV_BT709_FULL,
} vitlet_yuv;

// Outputs of networks: bits, for vitlet_options.outputs.
typedef enum {
    // `[classes]`. A network without a head has none.
    VITLET_OUTPUT_LOGITS = 1,
    // The pooled features before the head, `[features]`.
    VITLET_OUTPUT_FEATURES = 2,
    // The patch tokens after the last norm, `[patches, dim]`.
    VITLET_OUTPUT_TOKENS = 4,
} vitlet_output;

// A model: weights and labels, read only. Any number of sessions on any threads may use one at the same time.
typedef struct vitlet_model vitlet_model;

// Threads of the library's own, for hosts without: started by the host, never by themselves.
typedef struct vitlet_pool vitlet_pool;

// A session: the memory in which a model runs, for one thread at a time. It holds nothing that would have to be
// closed.
typedef struct vitlet_session vitlet_session;

// Why a function failed. It may be on the stack and needs no values before the call; its size stays the same in all
// versions.
typedef struct {
    // What the function returns.
    vitlet_status status;
    // One line in UTF-8 that ends with a NUL: what is wrong, and why. After VITLET_STATUS_OK it is empty.
    char text[VITLET_ERROR_TEXT_BYTES];
} vitlet_error;

// What a network takes and gives.
typedef struct {
    // sizeof(vitlet_model_info), set before the call; 0 for the fields of version 1. As much is filled.
    size_t size;
    // Pixels per row of the network's input; pictures of any size are resized to it.
    uint32_t input_width;
    // Rows of the network's input.
    uint32_t input_height;
    // Logits; 0 if the network has no head and gives features.
    size_t classes;
    // Length of the pooled features, before the head.
    size_t features;
    // Patch tokens.
    size_t patches;
    // Length of one token.
    size_t dim;
} vitlet_model_info;

// How a pool is started. Zeros are good defaults: `vitlet_pool_options options = {0};`. Helpers are all threads of a
// pool but the one that runs a session, which stays as the host made it.
typedef struct {
    // sizeof(vitlet_pool_options), or 0 where only the fields of version 1 are used.
    size_t size;
    // Threads, the one that runs a session included, at most 256. 0: one for each of `cpus`, or, without them, for
    // each CPU that this process may use.
    uint32_t threads;
    // How long a helper spins for work before it sleeps, in microseconds. 0 is 200. Less saves power, but threads are
    // woken within a run; more keeps cores busy between runs that follow closely.
    uint32_t spin_microseconds;
    // The helpers' real-time priority, 1 to 99 (Linux: SCHED_FIFO, which a process must be allowed). 0: as the thread
    // has that starts the pool. The host should give the thread that runs sessions the same, and leave a CPU to
    // others.
    uint32_t priority;
    // What helpers are called, before a hyphen and a number; Linux shows 15 bytes. NULL is "vitlet".
    const char *name;
    // Numbers of the CPUs that the helpers may run on (Linux). NULL: as the thread that starts the pool.
    const uint32_t *cpus;
    // How many CPUs there are in `cpus`.
    size_t cpu_count;
    // Stack of each helper, at least 131072 bytes; 0 is 2 MB.
    size_t stack_bytes;
} vitlet_pool_options;

// Work to be done by threads.
typedef void (*vitlet_job)(void *data);

// The host's threads; vitlet_options.threads says how many.
typedef struct {
    // Calls `job(data)` once on each thread that shall help, the calling one included if it likes, and returns when
    // all those calls have returned. A call that finds nothing left to do returns at once. NULL: the calling thread
    // works alone. It must not throw: an exception ends the process where it reaches the library.
    void (*run)(void *context, vitlet_job job, void *data);
    // Passed on to `run`.
    void *context;
} vitlet_executor;

// A class that a picture may show.
typedef struct {
    // The class, for vitlet_model_label().
    size_t index;
    // Its logit.
    float logit;
    // Its probability: softmax over all classes, or a sigmoid of its own, as the model says.
    float probability;
} vitlet_guess;

// How a model is run. Zeros are good defaults: `vitlet_options options = {0};`.
typedef struct {
    // sizeof(vitlet_options), or 0 where only the fields of version 1 are used.
    size_t size;
    // Threads of the executor, the calling one included, at most 256. 0: those of the pool if the executor is a
    // pool's, 1 if there is no executor; for another executor it must be said. A number that is not the executor's
    // gives VITLET_STATUS_OPTIONS.
    uint32_t threads;
    // Pixels per row of the largest picture (of its region), at most 2^24; 0 is 4096.
    uint32_t max_picture_width;
    // Rows of the largest picture (of its region), at most 2^24; 0 is 4096.
    uint32_t max_picture_height;
    // What runs give: vitlet_outputs, combined by `|`; 0 for the logits, or the features if the network has no head.
    uint32_t outputs;
    // Pixels per row of the network's input, a multiple of the patch; 0 in both for the model's own size. Positions
    // are resampled when the session opens.
    uint32_t input_width;
    // Rows of the network's input, a multiple of the patch.
    uint32_t input_height;
    // 1: a byte of each 4096 bytes of the model's file is read when the session opens, so that the first run does not
    // wait for the disk. (The session's memory is written then in any case.) 0: the first run reads them.
    uint32_t prefault;
    // Kernels by name: "scalar", "neon", "neon-fp16", "neon-dotprod", "neon-i8mm", "avx2", "avx-vnni" or
    // "avx512-vnni"; NULL for the fastest that this CPU has. All give the same bits in int8 models. Without std, NULL
    // reads the CPU's ID registers, which needs EL1 or above and cores that are alike.
    const char *kernels;
    // The threads that work.
    vitlet_executor executor;
    // A flag that is looked at between the network's blocks: while it is true, runs end with VITLET_STATUS_STOPPED.
    // Another thread or a signal handler sets it by vitlet_stop_set() or as an atomic_bool. It must be there as long
    // as the session runs. NULL: nothing stops a run.
    const bool *stop;
} vitlet_options;

// A rectangle of pixels.
typedef struct {
    // Pixels to the left of it.
    uint32_t x;
    // Rows above it.
    uint32_t y;
    // Pixels per row.
    uint32_t width;
    // Rows.
    uint32_t height;
} vitlet_region;

// A picture. Zeros are good defaults for all but format, size and the first plane.
typedef struct {
    // sizeof(vitlet_picture), or 0 where only the fields of version 1 are used.
    size_t size;
    // A vitlet_format.
    uint32_t format;
    // Pixels per row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // The first byte of each plane: one, two (NV12) or three (I420).
    const uint8_t *planes[3];
    // Bytes from the start of a row to the start of the next, for each plane; 0 for rows without gaps.
    size_t strides[3];
    // The part that the network looks at, before it is turned; all zero for the whole picture.
    vitlet_region region;
    // A vitlet_rotation: degrees clockwise.
    uint32_t rotation;
    // A vitlet_yuv, for the formats with luma and chroma.
    uint32_t yuv;
} vitlet_picture;

// Name and shape of an output, a dense array of floats.
typedef struct {
    // sizeof(vitlet_tensor_info), set before the call; 0 for the fields of version 1. As much is filled.
    size_t size;
    // "logits", "features" or "tokens": a constant.
    const char *name;
    // A vitlet_output.
    uint32_t output;
    // How many dimensions there are.
    uint32_t rank;
    // The dimensions, outermost first; 1 beyond the rank.
    size_t dims[4];
    // Floats: the product of the dimensions.
    size_t elements;
} vitlet_tensor_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, "major.minor.patch".
const char *vitlet_version(void);

// VITLET_MODEL_BYTES, for hosts that do not read this header.
size_t vitlet_model_bytes(void);

// Checks the bytes of a model file, which start at a multiple of VITLET_ALIGNMENT and stay unchanged as long as the
// model is used, and makes a model in `memory`. Nothing has to be closed. `error` may be NULL.
//
// Requires: As the comment says, and `file` has `file_bytes` bytes, `memory` `memory_bytes`.
vitlet_status vitlet_model_parse(void *memory,
                                 size_t memory_bytes,
                                 const void *file,
                                 size_t file_bytes,
                                 vitlet_model **model,
                                 vitlet_error *error);

// Maps a model file into memory, whatever the size of the system's pages is, checks it, and makes a model in `memory`;
// vitlet_model_close() unmaps it. The file must not be changed meanwhile (rename another over it; one that is cut
// short gives SIGBUS). `error` may be NULL. Not in libraries built without std.
//
// Requires: `memory` has `memory_bytes` bytes, `path` ends with a NUL.
vitlet_status vitlet_model_open(void *memory,
                                size_t memory_bytes,
                                const char *path,
                                vitlet_model **model,
                                vitlet_error *error);

// Unmaps the file of a model that vitlet_model_open() made; no session may use it any more. Its memory is the caller's
// again. NULL is allowed.
//
// Requires: `model` is NULL or a model that is not closed yet.
void vitlet_model_close(vitlet_model *model);

// What the network takes and gives.
//
// Requires: `model` is a model; the size in `info` is set.
vitlet_status vitlet_model_describe(const vitlet_model *model, vitlet_model_info *info);

// Copies the label of class `index`, UTF-8, into `buffer` as snprintf() does: cut to `buffer_bytes` with a NUL at its
// end. Returns the bytes of the whole label without the NUL; 0 where there is none. `buffer` may be NULL.
//
// Requires: `model` is a model, `buffer` has `buffer_bytes` bytes.
size_t vitlet_model_label(const vitlet_model *model, size_t index, char *buffer, size_t buffer_bytes);

// Copies the model's name, like vitlet_model_label().
//
// Requires: As vitlet_model_label().
size_t vitlet_model_name(const vitlet_model *model, char *buffer, size_t buffer_bytes);

// Starts the helpers of a pool: one less than it has threads, as the calling thread is the last one. They wait for
// work, spinning at first, then asleep. This function alone takes memory from the system. `error` may be NULL. Not in
// libraries built without std.
//
// Requires: A pointer can be stored at `pool`; `options.cpus` has `options.cpu_count` elements; the name ends with
// a NUL.
vitlet_status vitlet_pool_start(const vitlet_pool_options *options, vitlet_pool **pool, vitlet_error *error);

// Ends the threads of a pool, which no session may use any more. NULL is allowed.
//
// Requires: `pool` is NULL or a pool that is not stopped yet.
void vitlet_pool_stop(vitlet_pool *pool);

// The executor that works on a pool's threads; several sessions may share one, and take turns.
vitlet_executor vitlet_pool_executor(vitlet_pool *pool);

// Writes the `k` largest of `len` logits, largest first, NaN last, and stores how many there are: `k`, or fewer where
// there are fewer classes. `guess_bytes` is sizeof(vitlet_guess). Of equals the lower index comes first. Where a logit
// is NaN, so is each probability of a softmax. `count` may be NULL.
//
// Requires: `model` is a model, `logits` has `len` elements, `guesses` has `k`, each of `guess_bytes` bytes.
vitlet_status vitlet_top_k(const vitlet_model *model,
                           const float *logits,
                           size_t len,
                           vitlet_guess *guesses,
                           size_t guess_bytes,
                           size_t k,
                           size_t *count);

// A hash of `len` floats' bits: equal on two machines exactly if every bit is. `vitlet classify --digest` prints the
// same number for the same picture and int8 model. 0 where `values` is NULL or misaligned.
//
// Requires: `values` has `len` elements.
uint64_t vitlet_digest(const float *values, size_t len);

// Stores the bytes of memory, at a multiple of VITLET_ALIGNMENT, that a session with these options needs. `error` may
// be NULL.
//
// Requires: `model` is a model; the options' strings end with a NUL.
vitlet_status vitlet_session_bytes(const vitlet_model *model,
                                   const vitlet_options *options,
                                   size_t *bytes,
                                   vitlet_error *error);

// Makes a session in `memory`, which it uses from then on, and which is the caller's again when it runs no more. All
// of that memory is written here, so that runs meet no page for the first time. The model must live longer. `error`
// may be NULL.
//
// Requires: As the comment says, and `memory` has `memory_bytes` bytes; the options' strings end with a NUL.
vitlet_status vitlet_session_open(const vitlet_model *model,
                                  const vitlet_options *options,
                                  void *memory,
                                  size_t memory_bytes,
                                  vitlet_session **session,
                                  vitlet_error *error);

// Resizes, crops and normalizes a picture as the model was trained, and runs the network; vitlet_output_data() then
// has the results. `error` may be NULL.
//
// Requires: `session` is a session that no other thread uses now; the picture's planes hold its rows.
vitlet_status vitlet_run_picture(vitlet_session *session, const vitlet_picture *picture, vitlet_error *error);

// Runs the network on a normalized tensor `[3, input_height, input_width]` of `tensor_len` floats; the rest is as in
// vitlet_run_picture().
//
// Requires: `session` is a session that no other thread uses now; `tensor` has `tensor_len` elements.
vitlet_status vitlet_run_tensor(vitlet_session *session, const float *tensor, size_t tensor_len, vitlet_error *error);

// How many outputs a session's runs give, at least 1. 0 where `session` is NULL.
//
// Requires: `session` is a session that no other thread runs now.
size_t vitlet_output_count(const vitlet_session *session);

// Name and shape of output `index`; they are known before the first run. Outputs are in the order of their bits.
//
// Requires: `session` is a session; the size in `info` is set.
vitlet_status vitlet_output_info(const vitlet_session *session, size_t index, vitlet_tensor_info *info);

// Where output `index` stands, valid until the session's next run, and how many floats it has (`len` may be NULL).
// NULL and 0 where there is no such output, or where the last run did not succeed.
//
// Requires: `session` is a session that no other thread runs now.
const float *vitlet_output_data(const vitlet_session *session, size_t index, size_t *len);

// Writes the normalized tensor `[3, input_height, input_width]` that vitlet_run_picture() feeds to the network: to
// look at it, or to time it. The results of the last run are gone. `error` may be NULL.
//
// Requires: As vitlet_run_picture(); `tensor` has `tensor_len` elements.
vitlet_status vitlet_prepare_picture(vitlet_session *session,
                                     const vitlet_picture *picture,
                                     float *tensor,
                                     size_t tensor_len,
                                     vitlet_error *error);

// Sets a flag that vitlet_options.stop points to: atomically, and safely in a signal handler. NULL is allowed.
//
// Requires: `flag` is NULL or a bool that is read and written atomically only.
void vitlet_stop_set(bool *flag, bool stop);

// Copies the name of the kernels that a session uses, like vitlet_model_label().
//
// Requires: `session` is a session that no other thread runs now, `buffer` has `buffer_bytes` bytes.
size_t vitlet_session_kernels(const vitlet_session *session, char *buffer, size_t buffer_bytes);

// One line for people, for any number; vitlet_error has more to say.
const char *vitlet_status_string(uint32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VITLET_H */
