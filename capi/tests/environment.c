// A host that rounds, flushes or traps: the library's results are the same, and the host's environment comes back.
// scripts/test_capi.sh runs it on a model whose pictures are resized in proportion, where a rounding mode would move
// the crop by a pixel.
//
//     environment model.gguf

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vitlet.h>

#if defined(__x86_64__)
// MXCSR: rounding down, up and towards zero; flush-to-zero, denormals-are-zero, both; every exception unmasked.
static const uint64_t ENVIRONMENTS[] = {0x1f80, 0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0x9fc0, 0};
static uint64_t get(void) {
    uint32_t mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr) : : "memory");
    return mxcsr;
}
static void set(uint64_t value) {
    uint32_t mxcsr = (uint32_t)value;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");
}
#elif defined(__aarch64__)
// FPCR: rounding up, down and towards zero; flush-to-zero; default NaN; every exception trapped, where the core can.
static const uint64_t ENVIRONMENTS[] = {0, 1 << 22, 2 << 22, 3 << 22, 1 << 24, 1 << 25, 0x9f00};
static uint64_t get(void) {
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr) : : "memory");
    return fpcr;
}
static void set(uint64_t fpcr) { __asm__ volatile("msr fpcr, %0" : : "r"(fpcr) : "memory"); }
#endif

enum { EDGE = 256, SIZES = 40 };

static void *memory(size_t bytes) {
    void *start = aligned_alloc(VITLET_ALIGNMENT, bytes);
    if (!start) {
        exit(9);
    }
    return start;
}

static void check(vitlet_status status) {
    if (status != VITLET_STATUS_OK) {
        fprintf(stderr, "error: %s\n", vitlet_status_string(status));
        exit(1);
    }
}

// A hash of everything that the library computes from bytes and pictures, in the environment of the caller.
static uint64_t everything(const char *path, void *model_memory, void *session_memory, const uint8_t *pixels, float *tensor) {
    vitlet_model *model;
    check(vitlet_model_open(model_memory, vitlet_model_bytes(), path, &model, NULL));
    vitlet_model_info info = {0};
    check(vitlet_model_describe(model, &info));
    vitlet_options options = {0};
    options.max_picture_width = options.max_picture_height = EDGE;
    size_t bytes, len, count, tensor_len = (size_t)3 * info.input_width * info.input_height;
    check(vitlet_session_bytes(model, &options, &bytes, NULL));
    vitlet_session *session;
    check(vitlet_session_open(model, &options, session_memory, bytes, &session, NULL));
    uint64_t hash = bytes;
    for (uint32_t i = 0; i < SIZES; i++) {
        vitlet_picture picture = {0};
        picture.format = VITLET_FORMAT_RGB8;
        picture.width = 20 + i * 37 % 211, picture.height = 20 + i * 53 % 173;
        picture.planes[0] = pixels;
        check(vitlet_prepare_picture(session, &picture, tensor, tensor_len, NULL));
        hash = 31 * hash + vitlet_digest(tensor, tensor_len);
        vitlet_guess best[3];
        check(vitlet_run_picture(session, &picture, NULL));
        const float *logits = vitlet_output_data(session, 0, &len);
        hash = 31 * hash + vitlet_digest(logits, len);
        check(vitlet_run_tensor(session, tensor, tensor_len, NULL));
        logits = vitlet_output_data(session, 0, &len);
        hash = 31 * hash + vitlet_digest(logits, len);
        check(vitlet_top_k(model, logits, len, best, sizeof best[0], 3, &count));
        for (size_t k = 0; k < count; k++) {
            hash = 31 * hash + best[k].index + vitlet_digest(&best[k].probability, 1);
        }
    }
    vitlet_model_close(model);
    return hash;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    void *model_memory = memory(vitlet_model_bytes()), *session_memory = memory(64 << 20);
    uint8_t *pixels = memory(3 * EDGE * EDGE);
    for (uint32_t i = 0; i < 3 * EDGE * EDGE; i++) {
        pixels[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    float *tensor = memory(64 << 20);
    const uint64_t own = get(), expected = everything(argv[1], model_memory, session_memory, pixels, tensor);
    int wrong = 0;
    for (size_t i = 0; i < sizeof ENVIRONMENTS / sizeof *ENVIRONMENTS; i++) {
        set(ENVIRONMENTS[i]);
        const uint64_t before = get();
        const uint64_t hash = everything(argv[1], model_memory, session_memory, pixels, tensor);
        const uint64_t after = get();
        set(own);
        if (hash != expected || after != before) {
            fprintf(stderr, "error: environment %#llx: %s\n", (unsigned long long)ENVIRONMENTS[i],
                    hash != expected ? "another result" : "it did not come back");
            wrong = 1;
        }
    }
    printf("%d environments give the same\n", (int)(sizeof ENVIRONMENTS / sizeof *ENVIRONMENTS));
    return wrong;
}
