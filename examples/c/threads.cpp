// One model, many sessions, and a program's own threads:
//
//     threads model.gguf frame.rgb WIDTH HEIGHT
//
// Classifies an RGB frame in four threads at once, each with its own session, then in one session whose work is
// done by threads that this program starts through the executor's callback. The results are the same to the bit; prints
// the likeliest label and the digest.

#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>
#include <vitlet.hpp>

// An executor: any function that calls the job on some threads and waits for them. (A real program would keep its
// threads.)
static void run_on_my_threads(void *context, vitlet_job job, void *data) {
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < *static_cast<const unsigned *>(context); i++) {
        helpers.emplace_back(job, data);
    }
    job(data);
    for (std::thread &helper : helpers) {
        helper.join();
    }
}

static int classify(const char *model_path, const char *path, uint32_t width, uint32_t height) {
    vitlet::Model opened = vitlet::Model::open(model_path);
    const vitlet::Model model = std::move(opened);
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> frame{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (frame.size() != size_t{3} * width * height) {
        std::cerr << "error: " << path << ": not an RGB frame of this size\n";
        return 1;
    }
    vitlet_picture picture = {};
    picture.format = VITLET_FORMAT_RGB8;
    picture.width = width, picture.height = height;
    picture.planes[0] = reinterpret_cast<const uint8_t *>(frame.data());

    // Four sessions of one model, at the same time.
    uint64_t digests[4] = {};
    std::vector<std::thread> users;
    for (uint64_t &digest : digests) {
        users.emplace_back([&] { digest = vitlet::Session(model).run(picture).digest(); });
    }
    for (std::thread &user : users) {
        user.join();
    }

    // One session, three threads of ours.
    unsigned threads = 3;
    vitlet_options options = {};
    options.threads = threads;
    options.executor = {run_on_my_threads, &threads};
    vitlet::Session session(model, options);
    const vitlet::Output logits = session.run(picture);

    // And one with the library's pool.
    const vitlet::Pool pool(2);
    vitlet::Session pooled(model, pool.with());
    for (uint64_t digest : {digests[0], digests[1], digests[2], digests[3], pooled.run(picture).digest()}) {
        if (digest != logits.digest()) {
            std::cerr << "error: threads: different results\n";
            return 1;
        }
    }
    const vitlet_guess best = model.top_k(logits, 1).front();
    std::cout << model.label(best.index) << "\ndigest " << std::hex;
    std::cout.width(16);
    std::cout.fill('0');
    std::cout << logits.digest() << "\n";
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        std::cerr << "error: usage: threads MODEL FRAME.rgb WIDTH HEIGHT\n";
        return 2;
    }
    try {
        return classify(argv[1], argv[2], uint32_t(std::stoul(argv[3])), uint32_t(std::stoul(argv[4])));
    } catch (const std::exception &e) {
        std::cerr << "error: " << e.what() << "\n";
        return 1;
    }
}
