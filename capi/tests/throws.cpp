// A host that throws an exception through the library: the process must end (SIGABRT) before the handler sees it.
// scripts/test_capi.sh runs it.

#include <stdexcept>
#include <vector>
#include <vitlet.hpp>

static void run(void *, vitlet_job, void *) { throw std::runtime_error("on purpose"); }

int main(int, char **argv) {
    const vitlet::Model model = vitlet::Model::open(argv[1]);
    vitlet_options options = {};
    options.threads = 2;
    options.executor.run = run;
    vitlet::Session session(model, options);
    const vitlet_model_info info = model.info();
    try {
        session.run(std::vector<float>(size_t{3} * info.input_width * info.input_height));
    } catch (const std::exception &) {
        return 1; // It came through.
    }
    return 2; // It was swallowed.
}
