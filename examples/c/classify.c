// Prints the most likely labels of a picture: a PPM file, or a raw frame of a camera.
//
//     classify model.gguf photo.ppm
//     classify model.gguf frame.nv12 nv12 1920 1080          formats: rgb bgr rgba gray yuyv nv12 i420
//
// Options before the model: -t THREADS, -r DEGREES clockwise, -k KERNELS by name, -y MATRIX of luma and chroma (bt601
// bt601-full bt709 bt709-full), -c X,Y,WIDTH,HEIGHT looks at this part only. Prints the five likeliest labels, and the
// hash of the logits that `vitlet classify --digest` prints.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vitlet.h>

static void fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void check(const vitlet_error *error, const char *what) {
    if (error->status != VITLET_STATUS_OK) {
        fail(what, error->text);
    }
}

static void *memory(size_t bytes) {
    void *start = aligned_alloc(VITLET_ALIGNMENT, bytes);
    if (!start) {
        fail("memory", "not enough");
    }
    return start;
}

// The number of a name in a list, which is the number of its enum.
static uint32_t number_of(const char *name, const char *const *names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!strcmp(name, names[i])) {
            return (uint32_t)i;
        }
    }
    fail(name, "no such name");
    return 0;
}

static const char *const FORMATS[] = {"rgb", "bgr", "rgba", "gray", "yuyv", "nv12", "i420"};
static const char *const MATRICES[] = {"bt601", "bt601-full", "bt709", "bt709-full"};

// One number of a PPM's header: blanks and comments may stand before it.
static uint32_t ppm_number(FILE *file, const char *path) {
    int c = fgetc(file);
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
        while (c == '#' && (c = fgetc(file)) != EOF && c != '\n') {
            c = '#';
        }
        c = fgetc(file);
    }
    uint32_t number = 0;
    for (; c >= '0' && c <= '9' && number < 1u << 24; c = fgetc(file)) {
        number = 10 * number + (uint32_t)(c - '0');
    }
    // The character that ends the number is a blank, and gone.
    if (c != ' ' && c != '\t' && c != '\r' && c != '\n') {
        fail(path, "a broken PPM header");
    }
    return number;
}

// Points the picture's planes into the frame that follows in the file, row after row and plane after plane; the caller
// frees the first.
static void read_frame(FILE *file, const char *path, vitlet_picture *picture) {
    size_t width = picture->width, height = picture->height, half = (width + 1) / 2, half_height = (height + 1) / 2;
    size_t bytes[3] = {0, 0, 0};
    switch (picture->format) {
    case VITLET_FORMAT_RGB8:
    case VITLET_FORMAT_BGR8: bytes[0] = 3 * width * height; break;
    case VITLET_FORMAT_RGBA8: bytes[0] = 4 * width * height; break;
    case VITLET_FORMAT_GRAY8: bytes[0] = width * height; break;
    case VITLET_FORMAT_YUYV: bytes[0] = 4 * half * height; break;
    case VITLET_FORMAT_NV12: bytes[0] = width * height, bytes[1] = 2 * half * half_height; break;
    case VITLET_FORMAT_I420: bytes[0] = width * height, bytes[1] = bytes[2] = half * half_height; break;
    }
    size_t all = bytes[0] + bytes[1] + bytes[2];
    unsigned char *frame = malloc(all ? all : 1);
    if (!frame) {
        fail(path, "not enough memory");
    }
    if (!all || fread(frame, 1, all, file) != all) {
        fail(path, "the frame ends too early");
    }
    for (size_t i = 0, at = 0; i < 3 && bytes[i]; at += bytes[i++]) {
        picture->planes[i] = frame + at;
    }
}

int main(int argc, char **argv) {
    vitlet_options options = {0};
    vitlet_picture picture = {0};
    uint32_t threads = 1;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        const char *value = argv[at + 1];
        switch (argv[at][1]) {
        case 't': threads = (uint32_t)strtoul(value, NULL, 10); break;
        case 'r': picture.rotation = (uint32_t)strtoul(value, NULL, 10); break;
        case 'k': options.kernels = value; break;
        case 'y': picture.yuv = number_of(value, MATRICES, sizeof MATRICES / sizeof *MATRICES); break;
        case 'c':
            if (sscanf(value, "%u,%u,%u,%u", &picture.region.x, &picture.region.y, &picture.region.width,
                       &picture.region.height) != 4) {
                fail(value, "X,Y,WIDTH,HEIGHT is meant");
            }
            break;
        default: fail(argv[at], "no such option");
        }
    }
    if (argc - at != 2 && argc - at != 5) {
        fail("usage", "classify [OPTIONS] MODEL PICTURE.ppm | MODEL FRAME FORMAT WIDTH HEIGHT");
    }
    const char *model_path = argv[at], *path = argv[at + 1];

    FILE *file = fopen(path, "rb");
    if (!file) {
        fail(path, "cannot be opened");
    }
    if (argc - at == 5) {
        picture.format = number_of(argv[at + 2], FORMATS, sizeof FORMATS / sizeof *FORMATS);
        picture.width = (uint32_t)strtoul(argv[at + 3], NULL, 10);
        picture.height = (uint32_t)strtoul(argv[at + 4], NULL, 10);
    } else {
        if (fgetc(file) != 'P' || fgetc(file) != '6') {
            fail(path, "not a binary PPM (P6): for raw frames name format, width and height");
        }
        picture.width = ppm_number(file, path);
        picture.height = ppm_number(file, path);
        if (ppm_number(file, path) != 255) {
            fail(path, "a PPM with other than 8 bits");
        }
    }
    read_frame(file, path, &picture);
    fclose(file);

    // The model: weights stay in the file, which is mapped.
    vitlet_error error;
    vitlet_model *model;
    void *model_memory = memory(VITLET_MODEL_BYTES);
    vitlet_model_open(model_memory, VITLET_MODEL_BYTES, model_path, &model, &error);
    check(&error, model_path);

    // Threads that help; a program with its own threads fills in `executor` itself.
    vitlet_pool *pool = NULL;
    if (threads > 1) {
        const vitlet_pool_options pool_options = {.threads = threads};
        vitlet_pool_start(&pool_options, &pool, &error);
        check(&error, "threads");
        options.executor = vitlet_pool_executor(pool);
    }

    // The session: as much memory as this picture needs.
    options.max_picture_width = picture.width;
    options.max_picture_height = picture.height;
    size_t bytes;
    vitlet_session_bytes(model, &options, &bytes, &error);
    check(&error, "session");
    void *scratch = memory(bytes);
    vitlet_session *session;
    vitlet_session_open(model, &options, scratch, bytes, &session, &error);
    check(&error, "session");

    vitlet_run_picture(session, &picture, &error);
    check(&error, path);
    size_t len, count;
    const float *logits = vitlet_output_data(session, 0, &len);
    vitlet_guess best[5];
    if (vitlet_top_k(model, logits, len, best, sizeof best[0], 5, &count) != VITLET_STATUS_OK) {
        fail(path, "no classes");
    }

    char kernels[32], label[128];
    vitlet_session_kernels(session, kernels, sizeof kernels);
    fprintf(stderr, "vitlet %s, %s, %zu KB of memory\n", vitlet_version(), kernels, bytes / 1024);
    for (size_t i = 0; i < count; i++) {
        vitlet_model_label(model, best[i].index, label, sizeof label);
        printf("%5.1f %%  %s (class %zu)\n", 100 * (double)best[i].probability, label, best[i].index);
    }
    printf("digest %016llx\n", (unsigned long long)vitlet_digest(logits, len));

    free(scratch);
    vitlet_pool_stop(pool);
    vitlet_model_close(model);
    free(model_memory);
    free((void *)picture.planes[0]);
    return EXIT_SUCCESS;
}
