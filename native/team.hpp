// Loops on the threads that torch computes with.
//
// torch's CPU products run on an OpenMP team, whose threads stay awake for a while after each loop: a loop that follows starts within a
// microsecond. A second set of threads would fight them for the cores, so kernels that stand between torch's own borrow that team. It is
// looked up in the running process (the entry points are those of GCC's OpenMP, which LLVM's has too); where there is none, the calling
// thread does all the work.
#pragma once

#include <algorithm>
#include <cstddef>

namespace hoarfrost {

using TeamBody = void (*)(const void* context, size_t thread, size_t num_threads);

// Calls `body(context, i, n)` for every i of a team of n <= num_threads threads, the calling one among them; returns when all are done.
void run_team(size_t num_threads, TeamBody body, const void* context);

// Splits 0..count into one range per thread and calls `body(begin, end)` on each; a range is no shorter than `grain`, the last one excepted.
// The body must not throw.
template <class Body>
void split_among_team(size_t num_threads, size_t count, size_t grain, const Body& body) {
    const size_t wanted = std::min(num_threads, (count + grain - 1) / std::max<size_t>(grain, 1));
    if (wanted <= 1) {
        if (count > 0) body(size_t{0}, count);
        return;
    }
    struct Context {
        const Body& body;
        size_t count;
    } const context{body, count};
    run_team(
        wanted,
        [](const void* opaque, size_t thread, size_t num_threads) {
            const Context& context = *static_cast<const Context*>(opaque);
            const size_t begin = context.count * thread / num_threads, end = context.count * (thread + 1) / num_threads;
            if (begin < end) context.body(begin, end);
        },
        &context);
}

}  // namespace hoarfrost
