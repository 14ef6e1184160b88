// Says how near the nearest point of a region is: in a frame of a camera, NV12, as `rpicam-vid` and V4L2 give it.
//
//     depth model.gguf frame.nv12 640 480
//     depth -s 336x252 -c 160,120,320,360 model.gguf frame.nv12 640 480
//
// Options before the model: -t THREADS, -s WIDTHxHEIGHT of the network's input (multiples of the patch) instead of the
// size that the model asks for, -c X,Y,WIDTH,HEIGHT of the region in pixels of the frame. The network sees the whole
// frame, so that it knows what the region is part of. Prints the nearest point, and the hash of the whole output that
// `vitlet depth --raw nv12:WIDTHxHEIGHT --digest` prints.

#include <stdio.h>
#include <stdlib.h>
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
    void *start = aligned_alloc(VITLET_ALIGNMENT, (bytes + VITLET_ALIGNMENT - 1) / VITLET_ALIGNMENT * VITLET_ALIGNMENT);
    if (!start) {
        fail("memory", "not enough");
    }
    return start;
}

// Luma, and chroma of 2 x 2 pixels below it, without gaps.
static unsigned char *read_nv12(const char *path, vitlet_picture *picture) {
    size_t luma = (size_t)picture->width * picture->height;
    size_t chroma = 2 * (((size_t)picture->width + 1) / 2) * (((size_t)picture->height + 1) / 2);
    unsigned char *frame = malloc(luma + chroma + 1);
    FILE *file = fopen(path, "rb");
    if (!frame || !file || !luma || fread(frame, 1, luma + chroma, file) != luma + chroma) {
        fail(path, "not a whole frame of this size");
    }
    fclose(file);
    picture->planes[0] = frame;
    picture->planes[1] = frame + luma;
    return frame;
}

// The rows (or columns) of the output whose middle lies in the pixels from `first` on; the one that holds the first
// pixel, if the region is too narrow for any.
static void span(size_t first, size_t pixels, size_t edge, size_t cells, size_t *from, size_t *to) {
    *from = (2 * first * cells + edge - 1) / (2 * edge);
    *to = (2 * (first + pixels) * cells + edge - 1) / (2 * edge);
    if (*from >= *to) {
        *from = first * cells / edge;
        *to = *from + 1;
    }
}

int main(int argc, char **argv) {
    vitlet_options options = {0};
    vitlet_picture picture = {.format = VITLET_FORMAT_NV12};
    vitlet_region region = {0};
    uint32_t threads = 1;
    int at = 1;
    for (; at + 1 < argc && argv[at][0] == '-'; at += 2) {
        const char *value = argv[at + 1];
        switch (argv[at][1]) {
        case 't': threads = (uint32_t)strtoul(value, NULL, 10); break;
        case 's':
            if (sscanf(value, "%ux%u", &options.input_width, &options.input_height) != 2) {
                fail(value, "WIDTHxHEIGHT is meant");
            }
            break;
        case 'c':
            if (sscanf(value, "%u,%u,%u,%u", &region.x, &region.y, &region.width, &region.height) != 4) {
                fail(value, "X,Y,WIDTH,HEIGHT is meant");
            }
            break;
        default: fail(argv[at], "no such option");
        }
    }
    if (argc - at != 4) {
        fail("usage", "depth [OPTIONS] MODEL FRAME.nv12 WIDTH HEIGHT");
    }
    const char *model_path = argv[at], *path = argv[at + 1];
    picture.width = (uint32_t)strtoul(argv[at + 2], NULL, 10);
    picture.height = (uint32_t)strtoul(argv[at + 3], NULL, 10);
    if (!region.width && !region.height) {
        region.width = picture.width, region.height = picture.height;
    }
    if (!region.width || !region.height || (uint64_t)region.x + region.width > picture.width ||
        (uint64_t)region.y + region.height > picture.height) {
        fail("region", "not inside the frame");
    }
    unsigned char *frame = read_nv12(path, &picture);

    vitlet_error error;
    vitlet_model *model;
    void *model_memory = memory(VITLET_MODEL_BYTES);
    vitlet_model_open(model_memory, VITLET_MODEL_BYTES, model_path, &model, &error);
    check(&error, model_path);
    vitlet_depth unit = vitlet_model_depth(model);
    if (unit == VITLET_DEPTH_NONE) {
        fail(model_path, "no depth head");
    }

    vitlet_pool *pool = NULL;
    if (threads > 1) {
        const vitlet_pool_options pool_options = {.threads = threads};
        vitlet_pool_start(&pool_options, &pool, &error);
        check(&error, "threads");
        options.executor = vitlet_pool_executor(pool);
    }
    options.outputs = VITLET_OUTPUT_DEPTH;
    if (!options.input_width) {
        vitlet_model_input_size(model, picture.width, picture.height, &options.input_width, &options.input_height);
    }
    options.max_picture_width = picture.width;
    options.max_picture_height = picture.height;
    size_t bytes, len;
    vitlet_session_bytes(model, &options, &bytes, &error);
    check(&error, "session");
    void *scratch = memory(bytes);
    vitlet_session *session;
    vitlet_session_open(model, &options, scratch, bytes, &session, &error);
    check(&error, "session");
    // The network's input has the shape of its output: a number for each pixel of it.
    vitlet_tensor_info info = {.size = sizeof info};
    vitlet_output_info(session, 0, &info);
    size_t rows = info.dims[0], columns = info.dims[1];

    vitlet_run_picture(session, &picture, &error);
    check(&error, path);
    const float *depth = vitlet_output_data(session, 0, &len);

    size_t top, bottom, left, right;
    span(region.y, region.height, picture.height, rows, &top, &bottom);
    span(region.x, region.width, picture.width, columns, &left, &right);
    size_t nearest = top * columns + left;
    for (size_t row = top; row < bottom; row++) {
        for (size_t i = row * columns + left; i < row * columns + right; i++) {
            // Metres are less where something is nearer, inverse distances are more.
            if (unit == VITLET_DEPTH_METRES ? depth[i] < depth[nearest] : depth[i] > depth[nearest]) {
                nearest = i;
            }
        }
    }
    // The pixel of the frame in which the middle of that number's pixel lies.
    size_t x = (2 * (nearest % columns) + 1) * picture.width / (2 * columns);
    size_t y = (2 * (nearest / columns) + 1) * picture.height / (2 * rows);
    const char *words = unit == VITLET_DEPTH_METRES ? "m" : "relative inverse depth";
    printf("nearest %.3f %s at %zu,%zu\n", (double)depth[nearest], words, x, y);
    printf("digest %016llx\n", (unsigned long long)vitlet_digest(depth, len));

    free(scratch);
    vitlet_pool_stop(pool);
    vitlet_model_close(model);
    free(model_memory);
    free(frame);
    return EXIT_SUCCESS;
}
