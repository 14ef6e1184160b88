// libvitlet without an operating system: no C library, no allocator, not even a main(). It is linked with nothing but
// libvitlet.a, so that every symbol that the library misses is an error of the linker; scripts/test_capi.sh runs it
// under QEMU's user mode, whose two system calls at the end are all that it asks of its host. (examples/c/firmware is
// the same on a Raspberry Pi 3.)

#include <vitlet.h>

// `vitlet inspect --c-header --max-picture 64x48` of the file at MODEL, model.gguf.
#include "model.h"

// MODEL: the path of a model file.
__asm__(".section .rodata\n"
        ".balign 64\n"
        ".global model_start, model_end\n"
        "model_start: .incbin \"" MODEL "\"\n"
        "model_end:\n"
        ".previous\n");
extern const unsigned char model_start[], model_end[];

static _Alignas(VITLET_ALIGNMENT) unsigned char model_memory[VITLET_MODEL_BYTES];
static _Alignas(VITLET_ALIGNMENT) unsigned char session_memory[MODEL_SESSION_BYTES];
static unsigned char luma[64 * 48], chroma[64 * 24];

static long system_call(long number, long a, long b, long c) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}

static void finish(const char *text, unsigned long len, long code) {
    system_call(64, 1, (long)text, (long)len); // write
    system_call(93, code, 0, 0);               // exit
    __builtin_unreachable();
}

static vitlet_error error;

static void check(vitlet_status status) {
    if (status != VITLET_STATUS_OK) {
        unsigned long len = 0;
        while (error.text[len]) {
            len++;
        }
        finish(error.text, len, 1);
    }
}

void _start(void) {
    vitlet_model *model;
    check(vitlet_model_parse(model_memory, sizeof model_memory, model_start, (size_t)(model_end - model_start), &model, &error));
    vitlet_options options = {0};
    options.max_picture_width = 64;
    options.max_picture_height = 48;
    size_t bytes;
    check(vitlet_session_bytes(model, &options, &bytes, &error));
    if (bytes != sizeof session_memory) {
        finish("other bytes than model.h has\n", 29, 1);
    }
    vitlet_session *session;
    check(vitlet_session_open(model, &options, session_memory, sizeof session_memory, &session, &error));

    for (unsigned i = 0; i < sizeof luma; i++) {
        luma[i] = (unsigned char)(16 + i % 64 * 3);
    }
    for (unsigned i = 0; i < sizeof chroma; i++) {
        chroma[i] = (unsigned char)(i % 2 ? 90 : 150);
    }
    vitlet_picture picture = {.format = VITLET_FORMAT_NV12, .width = 64, .height = 48, .planes = {luma, chroma}};
    check(vitlet_run_picture(session, &picture, &error));
    size_t len, count;
    const float *logits = vitlet_output_data(session, 0, &len);
    vitlet_guess best;
    check(vitlet_top_k(model, logits, len, &best, sizeof best, 1, &count));

    uint64_t digest = vitlet_digest(logits, len);
    char text[] = "digest 0000000000000000\n";
    for (unsigned i = 0; i < 16; i++, digest >>= 4) {
        text[22 - i] = "0123456789abcdef"[digest & 15];
    }
    finish(text, sizeof text - 1, 0);
}
