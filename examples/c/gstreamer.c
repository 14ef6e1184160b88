// Prints the most likely label of each frame of a camera, from a GStreamer pipeline:
//
//     gstreamer model.gguf "v4l2src ! appsink name=vitlet max-buffers=1 drop=true"
//     gstreamer model.gguf "videotestsrc num-buffers=3 ! video/x-raw,width=640,height=480 ! appsink name=vitlet"
//
// The pipeline ends in an appsink of the name "vitlet". Frames stay in GStreamer's buffers and in the camera's format,
// with its strides and its matrix of luma and chroma: nothing is copied, nothing converted by GStreamer.
// Prints the likeliest label of each frame and the hash of its logits; Ctrl-C ends it, within a frame too.

#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>
#include <signal.h>
#include <stdlib.h>
#include <vitlet.h>

static void fail(const char *what, const char *why) {
    g_printerr("error: %s: %s\n", what, why);
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

// GStreamer's formats that vitlet reads.
static const char CAPS[] = "video/x-raw,format={NV12,I420,YUY2,RGB,BGR,RGBA,RGBx,GRAY8}";
static const struct {
    GstVideoFormat theirs;
    vitlet_format ours;
} FORMATS[] = {
    {GST_VIDEO_FORMAT_NV12, VITLET_FORMAT_NV12},   {GST_VIDEO_FORMAT_I420, VITLET_FORMAT_I420},
    {GST_VIDEO_FORMAT_YUY2, VITLET_FORMAT_YUYV},   {GST_VIDEO_FORMAT_RGB, VITLET_FORMAT_RGB8},
    {GST_VIDEO_FORMAT_BGR, VITLET_FORMAT_BGR8},    {GST_VIDEO_FORMAT_RGBA, VITLET_FORMAT_RGBA8},
    {GST_VIDEO_FORMAT_RGBx, VITLET_FORMAT_RGBA8},  {GST_VIDEO_FORMAT_GRAY8, VITLET_FORMAT_GRAY8},
};

static uint32_t matrix_of(const GstVideoColorimetry *color) {
    const bool full = color->range == GST_VIDEO_COLOR_RANGE_0_255;
    if (color->matrix == GST_VIDEO_COLOR_MATRIX_BT709) {
        return full ? VITLET_YUV_BT709_FULL : VITLET_YUV_BT709;
    }
    return full ? VITLET_YUV_BT601_FULL : VITLET_YUV_BT601;
}

// The frame as it lies in its buffer.
static vitlet_picture picture_of(const GstVideoFrame *frame) {
    vitlet_picture picture = {.size = sizeof picture};
    size_t i = 0;
    while (i < G_N_ELEMENTS(FORMATS) && FORMATS[i].theirs != GST_VIDEO_FRAME_FORMAT(frame)) {
        i++;
    }
    if (i == G_N_ELEMENTS(FORMATS)) {
        fail("frame", "a format that the appsink did not ask for");
    }
    picture.format = FORMATS[i].ours;
    picture.width = (uint32_t)GST_VIDEO_FRAME_WIDTH(frame);
    picture.height = (uint32_t)GST_VIDEO_FRAME_HEIGHT(frame);
    picture.yuv = matrix_of(&frame->info.colorimetry);
    for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(frame); plane++) {
        picture.planes[plane] = GST_VIDEO_FRAME_PLANE_DATA(frame, plane);
        picture.strides[plane] = (size_t)GST_VIDEO_FRAME_PLANE_STRIDE(frame, plane);
    }
    return picture;
}

// Ends a run between two blocks of the network.
static bool stopped;
static void on_signal(int number) {
    (void)number;
    vitlet_stop_set(&stopped, true);
}

// What runs need; the session is opened when the first frame tells the stream's size.
struct classifier {
    vitlet_model *model;
    vitlet_session *session;
    void *scratch;
};

static void open_session(struct classifier *classifier, const vitlet_picture *first) {
    vitlet_error error;
    const vitlet_options options = {
        .size = sizeof options,
        .max_picture_width = first->width,
        .max_picture_height = first->height,
        .stop = &stopped,
        .prefault = 1,
    };
    size_t bytes;
    vitlet_session_bytes(classifier->model, &options, &bytes, &error);
    check(&error, "session");
    classifier->scratch = memory(bytes);
    vitlet_session_open(classifier->model, &options, classifier->scratch, bytes, &classifier->session, &error);
    check(&error, "session");
}

// Returns whether there is more to come.
static bool classify(struct classifier *classifier, GstSample *sample) {
    GstVideoInfo info;
    GstVideoFrame frame;
    GstBuffer *buffer = gst_sample_get_buffer(sample);
    if (!gst_video_info_from_caps(&info, gst_sample_get_caps(sample)) ||
        !gst_video_frame_map(&frame, &info, buffer, GST_MAP_READ)) {
        fail("frame", "its memory cannot be read");
    }
    const vitlet_picture picture = picture_of(&frame);
    if (!classifier->session) {
        open_session(classifier, &picture);
    }
    vitlet_error error;
    vitlet_run_picture(classifier->session, &picture, &error);
    gst_video_frame_unmap(&frame);
    if (error.status == VITLET_STATUS_STOPPED) {
        return false;
    }
    check(&error, "frame");

    size_t len, count;
    const float *logits = vitlet_output_data(classifier->session, 0, &len);
    vitlet_guess best;
    char label[128] = "";
    if (vitlet_top_k(classifier->model, logits, len, &best, sizeof best, 1, &count) != VITLET_STATUS_OK || !count) {
        fail("frame", "no classes");
    }
    vitlet_model_label(classifier->model, best.index, label, sizeof label);
    g_print("%" GST_TIME_FORMAT "  %5.1f %%  %s (class %zu)  digest %016llx\n", GST_TIME_ARGS(GST_BUFFER_PTS(buffer)),
            100 * (double)best.probability, label, best.index, (unsigned long long)vitlet_digest(logits, len));
    return true;
}

// The pipeline's own words, if it ended in an error.
static void check_bus(GstElement *pipeline) {
    GstBus *bus = gst_element_get_bus(pipeline);
    GstMessage *message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
    if (message) {
        GError *why;
        gst_message_parse_error(message, &why, NULL);
        fail(GST_OBJECT_NAME(message->src), why->message);
    }
    gst_object_unref(bus);
}

int main(int argc, char **argv) {
    gst_init(&argc, &argv);
    if (argc != 3) {
        fail("usage", "gstreamer MODEL \"SOURCE ! ... ! appsink name=vitlet\"");
    }
    struct classifier classifier = {0};
    vitlet_error error;
    void *model_memory = memory(VITLET_MODEL_BYTES);
    vitlet_model_open(model_memory, VITLET_MODEL_BYTES, argv[1], &classifier.model, &error);
    check(&error, argv[1]);

    GError *why = NULL;
    GstElement *pipeline = gst_parse_launch(argv[2], &why);
    if (why) {
        fail("pipeline", why->message);
    }
    GstElement *sink = GST_IS_BIN(pipeline) ? gst_bin_get_by_name(GST_BIN(pipeline), "vitlet") : NULL;
    if (!sink || !GST_IS_APP_SINK(sink)) {
        fail("pipeline", "no appsink with name=vitlet at its end");
    }
    GstCaps *caps = gst_caps_from_string(CAPS);
    gst_app_sink_set_caps(GST_APP_SINK(sink), caps);
    gst_caps_unref(caps);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);

    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    bool more = true;
    while (more && !__atomic_load_n(&stopped, __ATOMIC_RELAXED)) {
        GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), 100 * GST_MSECOND);
        if (sample) {
            more = classify(&classifier, sample);
            gst_sample_unref(sample);
        } else {
            check_bus(pipeline);
            more = !gst_app_sink_is_eos(GST_APP_SINK(sink));
        }
    }
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(sink);
    gst_object_unref(pipeline);
    free(classifier.scratch);
    vitlet_model_close(classifier.model);
    free(model_memory);
    return EXIT_SUCCESS;
}
