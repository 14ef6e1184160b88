// vitlet.hpp: a moved session takes its memory along, and the old object refuses to run; outputs by index;
// runs that are stopped.
// scripts/test_capi.sh runs it.
//
//     sessions model.gguf

#include <type_traits>
#include <utility>
#include <vector>
#include <vitlet.hpp>

using vitlet::Model;
using vitlet::Pool;
using vitlet::Session;

static_assert(!std::is_copy_constructible<Session>::value && !std::is_copy_assignable<Session>::value, "one owner");
static_assert(std::is_nothrow_move_constructible<Session>::value && std::is_nothrow_move_assignable<Session>::value, "moves");
static_assert(!std::is_copy_constructible<Model>::value && std::is_nothrow_move_constructible<Model>::value, "moves");
// Sessions keep a pool's address.
static_assert(!std::is_copy_constructible<Pool>::value && !std::is_move_constructible<Pool>::value, "stays");

static Session made(const Model &model) { return Session(model); }

int main(int, char **argv) {
    const Model model = Model::open(argv[1]);
    const vitlet_model_info info = model.info();
    const size_t len = size_t{3} * info.input_width * info.input_height;
    const std::vector<float> dark(len, -0.5f), light(len, 0.5f);
    const uint64_t of_dark = Session(model).run(dark).digest(), of_light = Session(model).run(light).digest();

    Session first = made(model), second(model);
    const vitlet::Output before = first.run(dark);
    std::vector<Session> kept;
    kept.push_back(std::move(first));
    // The memory is where it was, so that results stay.
    if (before.digest() != of_dark || kept[0].run(dark).digest() != of_dark) {
        return 1;
    }
    try {
        first.run(dark);
        return 2; // It ran in memory that is another's.
    } catch (const vitlet::Error &e) {
        if (e.status != VITLET_STATUS_NULL) {
            return 3;
        }
    }
    second = std::move(kept[0]);
    try {
        kept[0].run(dark);
        return 4; // It ran in the memory that `second` had.
    } catch (const vitlet::Error &e) {
        if (e.status != VITLET_STATUS_NULL) {
            return 5;
        }
    }
    const vitlet::Output result = second.run(dark);
    kept.clear();
    if (result.digest() != of_dark || second.run(light).digest() != of_light) {
        return 6;
    }
    // To itself: nothing changes.
    Session &same = second;
    second = std::move(same);
    if (second.run(dark).digest() != of_dark) {
        return 7;
    }
    // A pool's threads, whatever number the options had.
    const Pool pool(2);
    vitlet_options three = {};
    three.threads = 3;
    if (Session(model, pool.with(three)).run(dark).digest() != of_dark) {
        return 8;
    }
    // Several outputs at once, by index; none before a run.
    vitlet_options both = {};
    both.size = sizeof both;
    both.outputs = VITLET_OUTPUT_LOGITS | VITLET_OUTPUT_TOKENS;
    Session several(model, both);
    const vitlet_tensor_info tokens = several.info(1);
    if (several.outputs() != 2 || tokens.output != VITLET_OUTPUT_TOKENS || std::string(tokens.name) != "tokens" ||
        tokens.rank != 2 || tokens.dims[0] * tokens.dims[1] != tokens.elements || several.output(1).size != 0) {
        return 9;
    }
    if (several.run(dark).digest() != of_dark || several.output(1).size != tokens.elements) {
        return 10;
    }
    // A flag that is set stops every run, also of a pool that was asked for by options.
    bool stop = false;
    vitlet_pool_options helpers = {};
    helpers.threads = 2;
    helpers.name = "stopped";
    helpers.spin_microseconds = 50;
    const Pool named(helpers);
    vitlet_options stoppable = named.with();
    stoppable.stop = &stop;
    Session session(model, stoppable);
    vitlet_stop_set(&stop, true);
    try {
        session.run(dark);
        return 11;
    } catch (const vitlet::Error &e) {
        if (e.status != VITLET_STATUS_STOPPED || std::string(e.what()) != "tensor: stopped: the caller ended the run") {
            return 12;
        }
    }
    vitlet_stop_set(&stop, false);
    return session.run(dark).digest() == of_dark ? 0 : 13;
}
