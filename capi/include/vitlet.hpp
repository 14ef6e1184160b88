// vitlet for C++17: vitlet.h with destructors and exceptions. Header only.
//
//     vitlet::Model model = vitlet::Model::open("model.gguf");
//     vitlet::Session session(model);
//     vitlet_picture picture = {};
//     picture.format = VITLET_FORMAT_BGR8, picture.width = 640, picture.height = 480, picture.planes[0] = frame;
//     for (const vitlet_guess &guess : model.top_k(session.run(picture), 5)) {
//         std::cout << model.label(guess.index) << ' ' << guess.probability << '\n';
//     }
//
// Every failure throws vitlet::Error. A model must outlive its sessions; a pool its sessions, too. A session serves one
// thread at a time, a model any number.

#ifndef VITLET_HPP
#define VITLET_HPP

#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "vitlet.h"

namespace vitlet {

/// An operation that the library refused, and why.
class Error : public std::runtime_error {
  public:
    Error(const std::string &what, vitlet_status status)
        : std::runtime_error(what + ": " + vitlet_status_string(status)), status(status) {}
    Error(const std::string &what, const vitlet_error &error)
        : std::runtime_error(what + ": " + error.text), status(error.status) {}

    vitlet_status status;
};

/// For functions that return a status alone.
inline void check(vitlet_status status, const std::string &what) {
    if (status != VITLET_STATUS_OK) {
        throw Error(what, status);
    }
}

/// For functions that fill an error.
inline void check(const vitlet_error &error, const std::string &what) {
    if (error.status != VITLET_STATUS_OK) {
        throw Error(what, error);
    }
}

namespace detail {

struct Free {
    void operator()(void *memory) const { ::operator delete(memory, std::align_val_t(VITLET_ALIGNMENT)); }
};
using Memory = std::unique_ptr<void, Free>;

inline Memory memory(size_t bytes) { return Memory(::operator new(bytes, std::align_val_t(VITLET_ALIGNMENT))); }

/// A string from a function that copies like snprintf().
template <class Copy> std::string text(Copy copy) {
    std::string text(copy(nullptr, 0), '\0');
    copy(text.data(), text.size() + 1);
    return text;
}

} // namespace detail

/// Floats that a session owns, until its next run.
struct Output {
    const float *data;
    size_t size;

    const float *begin() const { return data; }
    const float *end() const { return data + size; }
    float operator[](size_t i) const { return data[i]; }
    uint64_t digest() const { return vitlet_digest(data, size); }
};

class Model {
  public:
    /// Maps a file.
    static Model open(const std::string &path) {
        Model model;
        vitlet_error error;
        vitlet_model_open(model.memory_.get(), VITLET_MODEL_BYTES, path.c_str(), &model.model_, &error);
        check(error, path);
        return model;
    }

    /// Reads `bytes` in place: they start at a multiple of VITLET_ALIGNMENT and outlive the model.
    static Model parse(const void *bytes, size_t len) {
        Model model;
        vitlet_error error;
        vitlet_model_parse(model.memory_.get(), VITLET_MODEL_BYTES, bytes, len, &model.model_, &error);
        check(error, "model");
        return model;
    }

    Model(Model &&other) noexcept
        : memory_(std::move(other.memory_)), model_(std::exchange(other.model_, nullptr)) {}
    Model &operator=(Model &&other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(model_, other.model_);
        return *this;
    }
    ~Model() { vitlet_model_close(model_); }

    vitlet_model_info info() const {
        vitlet_model_info info = {};
        info.size = sizeof info;
        check(vitlet_model_describe(model_, &info), "model");
        return info;
    }

    std::string name() const {
        return detail::text([&](char *buffer, size_t bytes) { return vitlet_model_name(model_, buffer, bytes); });
    }

    /// The input size (width, height) for a picture of this size, for `options.input_width` and `input_height`.
    std::pair<uint32_t, uint32_t> input_size(uint32_t width, uint32_t height) const {
        std::pair<uint32_t, uint32_t> size;
        check(vitlet_model_input_size(model_, width, height, &size.first, &size.second), "input_size");
        return size;
    }

    /// What the numbers of a depth output are; VITLET_DEPTH_NONE where there is no such output.
    vitlet_depth depth() const { return vitlet_model_depth(model_); }

    std::string label(size_t index) const {
        return detail::text([&](char *buffer, size_t bytes) { return vitlet_model_label(model_, index, buffer, bytes); });
    }

    /// The `k` largest of a run's logits, largest first.
    std::vector<vitlet_guess> top_k(const Output &logits, size_t k) const {
        std::vector<vitlet_guess> best(k < logits.size ? k : logits.size);
        check(vitlet_top_k(model_, logits.data, logits.size, best.data(), sizeof(vitlet_guess), best.size(), nullptr), "top_k");
        return best;
    }

    const vitlet_model *get() const { return model_; }

  private:
    Model() : memory_(detail::memory(VITLET_MODEL_BYTES)) {}

    detail::Memory memory_;
    vitlet_model *model_ = nullptr;
};

/// Threads that sessions may share; they take turns.
class Pool {
  public:
    explicit Pool(const vitlet_pool_options &options) {
        vitlet_error error;
        vitlet_pool_start(&options, &pool_, &error);
        check(error, "threads");
    }
    explicit Pool(uint32_t threads) : Pool(of(threads)) {}
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;
    ~Pool() { vitlet_pool_stop(pool_); }

    /// Options that let this pool work, otherwise as given.
    vitlet_options with(vitlet_options options = {}) const {
        options.threads = 0; // As many as the pool has.
        options.executor = vitlet_pool_executor(pool_);
        return options;
    }

  private:
    static vitlet_pool_options of(uint32_t threads) {
        vitlet_pool_options options = {};
        options.threads = threads;
        return options;
    }

    vitlet_pool *pool_ = nullptr;
};

class Session {
  public:
    explicit Session(const Model &model, const vitlet_options &options = {}) {
        vitlet_error error;
        size_t bytes = 0;
        vitlet_session_bytes(model.get(), &options, &bytes, &error);
        check(error, "session");
        memory_ = detail::memory(bytes);
        vitlet_session_open(model.get(), &options, memory_.get(), bytes, &session_, &error);
        check(error, "session");
    }

    /// The memory stays where it is, and with it the output of the last run. A session that was moved from throws
    /// when it runs.
    Session(Session &&other) noexcept
        : memory_(std::move(other.memory_)), session_(std::exchange(other.session_, nullptr)) {}
    Session &operator=(Session &&other) noexcept {
        if (this != &other) {
            memory_ = std::move(other.memory_);
            session_ = std::exchange(other.session_, nullptr);
        }
        return *this;
    }

    /// The first output.
    Output run(const vitlet_picture &picture) {
        vitlet_error error;
        vitlet_run_picture(session_, &picture, &error);
        check(error, "picture");
        return output(0);
    }

    /// `tensor`: `[3, input_height, input_width]`, normalized.
    Output run(const std::vector<float> &tensor) {
        vitlet_error error;
        vitlet_run_tensor(session_, tensor.data(), tensor.size(), &error);
        check(error, "tensor");
        return output(0);
    }

    size_t outputs() const { return vitlet_output_count(session_); }

    /// Name and shape of an output, known before the first run.
    vitlet_tensor_info info(size_t index) const {
        vitlet_tensor_info info = {};
        info.size = sizeof info;
        check(vitlet_output_info(session_, index, &info), "output");
        return info;
    }

    /// An output of the last run; no floats, if there was none.
    Output output(size_t index) const {
        Output output = {};
        output.data = vitlet_output_data(session_, index, &output.size);
        return output;
    }

    std::string kernels() const {
        return detail::text([&](char *buffer, size_t bytes) { return vitlet_session_kernels(session_, buffer, bytes); });
    }

    vitlet_session *get() const { return session_; }

  private:
    detail::Memory memory_;
    vitlet_session *session_ = nullptr;
};

} // namespace vitlet

#endif
