#include "base/team.hpp"

#include <atomic>
#include <exception>
#include <mutex>

#if !defined(_WIN32)
#include <dlfcn.h>
#endif

namespace hoarfrost {

namespace {

struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    void (*barrier)() = nullptr;
    int (*thread)() = nullptr;
    int (*num_threads)() = nullptr;

    bool is_there() const { return parallel != nullptr && barrier != nullptr && thread != nullptr && num_threads != nullptr; }
};

#if !defined(_WIN32)
template <class Entry>
void find(const char* name, Entry& entry) {
    entry = reinterpret_cast<Entry>(dlsym(RTLD_DEFAULT, name));
}
#endif

OpenMP find_openmp() {
    OpenMP found;
#if !defined(_WIN32)
    find("GOMP_parallel", found.parallel);
    find("GOMP_barrier", found.barrier);
    find("omp_get_thread_num", found.thread);
    find("omp_get_num_threads", found.num_threads);
#endif
    return found;
}

// Looked up when first needed, by which time torch is loaded.
const OpenMP& openmp() {
    static const OpenMP found = find_openmp();
    return found;
}

struct Call {
    void (*run)(const void*, const Member&);
    const void* context;
};

void enter(void* opaque) {
    const Call& call = *static_cast<const Call*>(opaque);
    call.run(call.context, {static_cast<size_t>(openmp().thread()), static_cast<size_t>(openmp().num_threads())});
}

}  // namespace

void Member::wait() const {
    if (team_size > 1) openmp().barrier();
}

void run_team(size_t num_threads, void (*run)(const void* context, const Member& member), const void* context) {
    if (num_threads <= 1 || !openmp().is_there()) return run(context, Member{});
    Call call{run, context};
    openmp().parallel(enter, &call, static_cast<unsigned>(num_threads), 0);
}

void parallel_for(size_t num_tasks, size_t num_threads, const std::function<void(size_t)>& task) {
    std::atomic<size_t> next = 0;
    std::exception_ptr failure;
    std::mutex failing;
    run_team(std::min(num_tasks, num_threads), [&](const Member&) {
        try {
            for (size_t i = next++; i < num_tasks; i = next++) task(i);
        } catch (...) {
            const std::lock_guard lock(failing);
            failure = std::current_exception();
        }
    });
    if (failure) std::rethrow_exception(failure);
}

}  // namespace hoarfrost
