#include "team.hpp"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace hoarfrost {

namespace {

using ParallelEntry = void (*)(void (*)(void*), void*, unsigned, unsigned);
using CountEntry = int (*)();

struct OpenMP {
    ParallelEntry parallel = nullptr;
    CountEntry thread = nullptr, num_threads = nullptr;

    bool is_there() const { return parallel != nullptr && thread != nullptr && num_threads != nullptr; }
};

OpenMP find_openmp() {
    OpenMP found;
#if !defined(_WIN32)
    found.parallel = reinterpret_cast<ParallelEntry>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    found.thread = reinterpret_cast<CountEntry>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
    found.num_threads = reinterpret_cast<CountEntry>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
#endif
    return found;
}

// Looked up when first needed, by which time torch is loaded.
const OpenMP& openmp() {
    static const OpenMP found = find_openmp();
    return found;
}

struct Call {
    TeamBody body;
    const void* context;
};

void enter(void* opaque) {
    const Call& call = *static_cast<const Call*>(opaque);
    call.body(call.context, static_cast<size_t>(openmp().thread()), static_cast<size_t>(openmp().num_threads()));
}

}  // namespace

void run_team(size_t num_threads, TeamBody body, const void* context) {
    if (num_threads <= 1 || !openmp().is_there()) return body(context, 0, 1);
    Call call{body, context};
    openmp().parallel(enter, &call, static_cast<unsigned>(num_threads), 0);
}

}  // namespace hoarfrost
