// vitlet: int8 and f16 Vision Transformers on ARM CPUs, from C and C++ (vitlet.hpp wraps this header for C++).
//
// Made by cbindgen from capi/src; do not edit.
//
// How to classify a picture. All memory is yours: nothing here allocates, holds globals or starts threads, except for
// vitlet_pool_start().
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
//     // 3. A picture, as the camera has it. It is resized, cropped and normalized as in the model's training.
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
// your threads, and vitlet_pool_start() starts new ones.
//
// Errors: functions return a vitlet_status. Those that take a vitlet_error also write the reason into it. NULL and
// misaligned pointers, wrong sizes and broken files are statuses. Two things end the process: a bug in the library (a
// panic aborts, it never unwinds into your code), and an exception thrown out of an executor's callback.
//
// Versions: this is interface version 1 (libvitlet.so.1). Later versions only add functions, numbers at the end of
// enums, and fields at the end of structs that begin with their size. Set that size to sizeof the struct, or leave it 0
// (`{0}`) to use the fields of version 1 only. Structs without a size never change. docs/c-api.md lists the changes
// that a program for version 0.1 needs.
//
// Without an operating system, link the libvitlet.a that is built without std: it needs no allocator and no C library.
// Enable FP/SIMD first, and pass the model's bytes to vitlet_model_parse(). `vitlet inspect --c-header` prints the
// sizes of the arrays that a model and its sessions need.


#ifndef VITLET_H
#define VITLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes of an error's text, the NUL included.
#define VITLET_ERROR_TEXT_BYTES 252

// Size of the memory for a model, in bytes; its address must be a multiple of VITLET_ALIGNMENT. (The weights stay
// where the file's bytes are.)
#define VITLET_MODEL_BYTES 1024

// The boundary, in bytes, on which models and the memory for handles start.
#define VITLET_ALIGNMENT 64

// The result of a function; vitlet_status_string() describes it in words.
typedef enum {
    // Done.
    VITLET_STATUS_OK = 0,
    // A pointer is NULL, but must not be.
    VITLET_STATUS_NULL,
    // A pointer is not aligned. Model files and the memory of handles need VITLET_ALIGNMENT, everything else the
    // alignment of its type in C.
    VITLET_STATUS_MISALIGNED,
    // The memory is smaller than vitlet_model_bytes() or vitlet_session_bytes() says.
    VITLET_STATUS_MEMORY,
    // A number is not in its enum, an index is out of range, the size of a struct belongs to no version, or a field is
    // set that this library is too old for.
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
    // The model's metadata, hyperparameters or tensors contradict each other; `vitlet inspect FILE` says where.
    VITLET_STATUS_MODEL,
    // The options ask for more than 256 threads, for a number of threads that the executor does not have, for a
    // largest picture that is too large, or for more memory than a system can have.
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
    // The system could not start a thread, or refused its CPUs or its priority.
    VITLET_STATUS_THREADS,
    // The flag of vitlet_options.stop ended the run.
    VITLET_STATUS_STOPPED,
} vitlet_status;

// What the numbers of a depth output are.
typedef enum {
    // The network has no depth head.
    VITLET_DEPTH_NONE = 0,
    // Distances in metres.
    VITLET_DEPTH_METRES,
    // Inverse distances up to a scale and a shift of the picture: larger is nearer.
    VITLET_DEPTH_INVERSE,
} vitlet_depth;

// How pixels lie in memory. In the last three formats a chroma value belongs to two pixels of a row, or to 2 x 2
// pixels, and is repeated for them.
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
    // Planes of Y, U and V; the planes of U and V are half as wide and half as high.
    VITLET_FORMAT_I420,
} vitlet_format;

// How far a picture is turned clockwise before the network sees it.
typedef enum {
    // Not at all.
    VITLET_ROTATION_NONE = 0,
    // A quarter turn clockwise.
    VITLET_ROTATION_CLOCKWISE90 = 90,
    // Upside down.
    VITLET_ROTATION_CLOCKWISE180 = 180,
    // A quarter turn counterclockwise.
    VITLET_ROTATION_CLOCKWISE270 = 270,
} vitlet_rotation;

// The meaning of Y, U and V: the matrix, and the range. In limited range black is 16 and white is 235; in full range
// they are 0 and 255.
typedef enum {
    // ITU-R BT.601: most cameras, unless told otherwise.
    VITLET_YUV_BT601 = 0,
    // BT.601 with full range, as in JPEG files.
    VITLET_YUV_BT601_FULL,
    // BT.709: high definition video.
    VITLET_YUV_BT709,
    // BT.709 with full range.
    VITLET_YUV_BT709_FULL,
} vitlet_yuv;

// Outputs of networks, as bits for vitlet_options.outputs.
typedef enum {
    // `[classes]`. A network without a head has none.
    VITLET_OUTPUT_LOGITS = 1,
    // The pooled features before the head, `[features]`.
    VITLET_OUTPUT_FEATURES = 2,
    // The patch tokens after the last norm, `[patches, dim]`.
    VITLET_OUTPUT_TOKENS = 4,
    // For each pixel of the input its distance in metres, or its inverse up to a scale and a shift, `[height, width]`.
    // Networks with a depth head have it.
    VITLET_OUTPUT_DEPTH = 8,
    // For each patch of the input one number a class, `[classes, height, width]` in patches. Networks with a linear
    // head for classes have it.
    VITLET_OUTPUT_LOGITS_MAP = 16,
} vitlet_output;

// A model: weights and labels, read only. Any number of sessions on any threads may use one at the same time.
typedef struct vitlet_model vitlet_model;

// Threads of the library, for hosts that have none. Only the host starts them.
typedef struct vitlet_pool vitlet_pool;

// A session: the memory in which a model runs, for one thread at a time. It need not be closed.
typedef struct vitlet_session vitlet_session;

// Why a function failed. It may be on the stack and needs no values before the call; its size stays the same in all
// versions.
typedef struct {
    // The status that the function returns.
    vitlet_status status;
    // One line in UTF-8 that ends with a NUL and says what is wrong, and why. Empty after VITLET_STATUS_OK.
    char text[VITLET_ERROR_TEXT_BYTES];
} vitlet_error;

// The sizes of a network's input and outputs.
typedef struct {
    // Set it before the call: sizeof(vitlet_model_info), or 0 for the fields of version 1. The call fills that much.
    size_t size;
    // Pixels per row of the network's input; pictures of any size are resized to it.
    uint32_t input_width;
    // Rows of the network's input.
    uint32_t input_height;
    // Number of logits; 0 if the network has no head, so that its first output is the features.
    size_t classes;
    // Length of the pooled features, before the head.
    size_t features;
    // Number of patch tokens.
    size_t patches;
    // Length of one token.
    size_t dim;
} vitlet_model_info;

// How a pool is started. Zeros are good defaults: `vitlet_pool_options options = {0};`. The thread that runs a session
// is the host's. All other threads of a pool are its helpers, and the fields below concern them.
typedef struct {
    // sizeof(vitlet_pool_options), or 0 for the fields of version 1.
    size_t size;
    // Number of threads, including the one that runs a session, at most 256. 0: one for each of `cpus`; without
    // `cpus`, one for each CPU that this process may use.
    uint32_t threads;
    // How long a helper spins for work before it sleeps, in microseconds; 0 is 200. Less saves power, but helpers may
    // fall asleep within a run. More keeps cores busy between runs that follow closely.
    uint32_t spin_microseconds;
    // Real-time priority of the helpers, 1 to 99 (Linux: SCHED_FIFO, for which the process needs permission). 0: the
    // priority of the thread that starts the pool. The host should give the same priority to the thread that runs
    // sessions, and leave one CPU to other programs.
    uint32_t priority;
    // Name of the helpers; a hyphen and a number follow it. Linux shows 15 bytes. NULL is "vitlet".
    const char *name;
    // Numbers of the CPUs that the helpers may run on (Linux). NULL: the CPUs of the thread that starts the pool.
    const uint32_t *cpus;
    // The number of elements in `cpus`.
    size_t cpu_count;
    // Size of each helper's stack in bytes, at least 131072; 0 is 2 MB.
    size_t stack_bytes;
} vitlet_pool_options;

// Work to be done by threads.
typedef void (*vitlet_job)(void *data);

// The host's threads; vitlet_options.threads is their number.
typedef struct {
    // Calls `job(data)` once on each thread that helps, and returns when all these calls have returned. The calling
    // thread may be one of them. A call that finds no work left returns at once. `run` must not throw: an exception
    // that reaches the library ends the process. NULL: the calling thread works alone.
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
    // Its probability: a softmax over all classes, or a sigmoid of this logit alone; the model says which.
    float probability;
} vitlet_guess;

// How a model is run. Zeros are good defaults: `vitlet_options options = {0};`.
typedef struct {
    // sizeof(vitlet_options), or 0 for the fields of version 1.
    size_t size;
    // Number of threads of the executor, the calling one included, at most 256. 0 means the threads of the pool if the
    // executor is a pool's, and 1 if there is no executor; for another executor the number must be set. A number that
    // differs from the executor's gives VITLET_STATUS_OPTIONS.
    uint32_t threads;
    // Pixels per row of the largest picture (of its region), at most 2^24; 0 is 4096.
    uint32_t max_picture_width;
    // Rows of the largest picture (of its region), at most 2^24; 0 is 4096.
    uint32_t max_picture_height;
    // The outputs of a run: values of vitlet_output, combined by `|`; 0 for the logits, or for the features if the
    // network has no head.
    uint32_t outputs;
    // Pixels per row of the network's input, a multiple of the patch. If both sizes are 0, the model's own size is
    // taken; otherwise positions are resampled when the session opens.
    uint32_t input_width;
    // Rows of the network's input, a multiple of the patch.
    uint32_t input_height;
    // 1: opening the session reads a byte of every 4096 bytes of the model's file, so that the first run does not wait
    // for the disk. 0: the first run reads the file. (The session's memory is written at opening in both cases.)
    uint32_t prefault;
    // Kernels by name: "scalar", "neon", "neon-fp16", "neon-dotprod", "neon-i8mm", "avx2", "avx-vnni" or
    // "avx512-vnni"; NULL for the fastest that this CPU has. All give the same bits in int8 models. Without std, NULL
    // reads the CPU's ID registers, which needs EL1 or above and cores of one kind.
    const char *kernels;
    // The threads that do the work.
    vitlet_executor executor;
    // A flag that is read between the network's blocks: while it is true, runs end with VITLET_STATUS_STOPPED. Another
    // thread or a signal handler sets it, by vitlet_stop_set() or as an atomic_bool. It must exist as long as the
    // session runs. NULL: nothing stops a run.
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
    // sizeof(vitlet_picture), or 0 for the fields of version 1.
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
    // Set it before the call: sizeof(vitlet_tensor_info), or 0 for the fields of version 1. The call fills that much.
    size_t size;
    // "logits", "features", "tokens", "depth" or "logits_map": a constant.
    const char *name;
    // A vitlet_output.
    uint32_t output;
    // Number of dimensions.
    uint32_t rank;
    // The dimensions, outermost first; 1 beyond the rank.
    size_t dims[4];
    // Number of floats: the product of the dimensions.
    size_t elements;
} vitlet_tensor_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, "major.minor.patch".
const char *vitlet_version(void);

// VITLET_MODEL_BYTES, for hosts that do not read this header.
size_t vitlet_model_bytes(void);

// Checks the bytes of a model file and makes a model in `memory`. The addresses of both must be multiples of
// VITLET_ALIGNMENT. The file's bytes must stay unchanged as long as the model is used. Nothing has to be closed.
// `error` may be NULL.
//
// Requires: `file` has `file_bytes` bytes, which stay unchanged as long as the model is used; `memory` has
// `memory_bytes`.
vitlet_status vitlet_model_parse(void *memory,
                                 size_t memory_bytes,
                                 const void *file,
                                 size_t file_bytes,
                                 vitlet_model **model,
                                 vitlet_error *error);

// Maps a model file, checks it, and makes a model in `memory`; vitlet_model_close() unmaps the file. Pages may have
// any size. The file must not change while it is mapped: if it is cut short, the process gets SIGBUS. To replace it,
// rename another file over it. `error` may be NULL. Libraries that are built without std lack this function.
//
// Requires: `memory` has `memory_bytes` bytes, `path` ends with a NUL.
vitlet_status vitlet_model_open(void *memory,
                                size_t memory_bytes,
                                const char *path,
                                vitlet_model **model,
                                vitlet_error *error);

// Unmaps the file of a model that vitlet_model_open() made. No session may use the model any more, and its memory is
// the caller's again. NULL is allowed.
//
// Requires: `model` is NULL or a model that is not closed yet.
void vitlet_model_close(vitlet_model *model);

// Fills `info` with the sizes of the network's input and outputs.
//
// Requires: `model` is a model; `info.size` is set.
vitlet_status vitlet_model_describe(const vitlet_model *model, vitlet_model_info *info);

// What VITLET_OUTPUT_DEPTH of a network means; VITLET_DEPTH_NONE also for NULL.
//
// Requires: `model` is a model.
vitlet_depth vitlet_model_depth(const vitlet_model *model);

// The size of the network's input that the checkpoint's own code takes for a picture of `width` x `height` pixels, for
// vitlet_options.input_width and vitlet_options.input_height. Depth models follow the aspect ratio of the picture; for
// all others it is the model's own size. A picture that is turned by a quarter has its edges swapped.
//
// Requires: `model` is a model; `input_width` and `input_height` have room for a number.
vitlet_status vitlet_model_input_size(const vitlet_model *model,
                                      uint32_t width,
                                      uint32_t height,
                                      uint32_t *input_width,
                                      uint32_t *input_height);

// Copies the label of class `index`, in UTF-8, into `buffer` as snprintf() does: cut to `buffer_bytes`, with a NUL at
// its end. Returns the length of the whole label in bytes, without the NUL, or 0 if there is no label. `buffer` may be
// NULL.
//
// Requires: `model` is a model, `buffer` has `buffer_bytes` bytes.
size_t vitlet_model_label(const vitlet_model *model, size_t index, char *buffer, size_t buffer_bytes);

// Copies the model's name, like vitlet_model_label().
//
// Requires: As vitlet_model_label().
size_t vitlet_model_name(const vitlet_model *model, char *buffer, size_t buffer_bytes);

// Starts the helpers of a pool. There is one helper less than threads, because the thread that runs a session counts,
// too. Helpers wait for work, spinning at first, then asleep. No other function takes memory from the system. `error`
// may be NULL. Libraries that are built without std lack this function.
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

// Writes the `k` largest of `len` logits, largest first, NaN last. Stores in `count` how many it wrote: `k`, or the
// number of classes if that is smaller. `guess_bytes` is sizeof(vitlet_guess). Of equal logits the lower index comes
// first. If a logit is NaN, every probability of a softmax is NaN, too. `count` may be NULL.
//
// Requires: `model` is a model, `logits` has `len` elements, `guesses` has `k`, each of `guess_bytes` bytes.
vitlet_status vitlet_top_k(const vitlet_model *model,
                           const float *logits,
                           size_t len,
                           vitlet_guess *guesses,
                           size_t guess_bytes,
                           size_t k,
                           size_t *count);

// A hash of the bits of `len` floats. Two machines get the same hash if all bits are equal. `vitlet classify --digest`
// prints the same number for the same picture and int8 model. 0 if `values` is NULL or misaligned.
//
// Requires: `values` has `len` elements.
uint64_t vitlet_digest(const float *values, size_t len);

// Stores the size of the memory, in bytes, that a session with these options needs. The address of that memory must be
// a multiple of VITLET_ALIGNMENT. `error` may be NULL.
//
// Requires: `model` is a model; strings in the options end with a NUL.
vitlet_status vitlet_session_bytes(const vitlet_model *model,
                                   const vitlet_options *options,
                                   size_t *bytes,
                                   vitlet_error *error);

// Makes a session in `memory`. The session uses that memory as long as it runs; afterwards the memory is the caller's
// again. The call writes to all of it, so that no run touches a page for the first time. The model must outlive the
// session. `error` may be NULL.
//
// Requires: `model` is a model and outlives the session; `memory` has `memory_bytes` bytes, which nobody else uses
// meanwhile; strings in the options end with a NUL.
vitlet_status vitlet_session_open(const vitlet_model *model,
                                  const vitlet_options *options,
                                  void *memory,
                                  size_t memory_bytes,
                                  vitlet_session **session,
                                  vitlet_error *error);

// Resizes, crops and normalizes a picture in the way the model was trained with, and runs the network.
// vitlet_output_data() then has the results. `error` may be NULL.
//
// Requires: `session` is a session that no other thread uses now; the picture's planes hold its rows.
vitlet_status vitlet_run_picture(vitlet_session *session, const vitlet_picture *picture, vitlet_error *error);

// Runs the network on a normalized tensor `[3, input_height, input_width]` of `tensor_len` floats. Everything else is
// as in vitlet_run_picture().
//
// Requires: `session` is a session that no other thread uses now; `tensor` has `tensor_len` elements.
vitlet_status vitlet_run_tensor(vitlet_session *session, const float *tensor, size_t tensor_len, vitlet_error *error);

// The number of outputs of a session's runs, at least 1; 0 if `session` is NULL.
//
// Requires: `session` is a session that no other thread runs now.
size_t vitlet_output_count(const vitlet_session *session);

// Fills `info` with the name and shape of output `index`, which are known before the first run. Outputs are in the
// order of their bits.
//
// Requires: `session` is a session; `info.size` is set.
vitlet_status vitlet_output_info(const vitlet_session *session, size_t index, vitlet_tensor_info *info);

// The address of output `index`, valid until the session's next run, and in `len` its number of floats (`len` may be
// NULL). NULL and 0 if there is no such output, or if the last run failed.
//
// Requires: `session` is a session that no other thread runs now.
const float *vitlet_output_data(const vitlet_session *session, size_t index, size_t *len);

// Writes the normalized tensor `[3, input_height, input_width]` that vitlet_run_picture() feeds to the network, so
// that a program can inspect it or measure its time. This discards the results of the last run. `error` may be NULL.
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
