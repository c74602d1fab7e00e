// A loop over independent tasks on a few threads that stay around between loops.
#pragma once

#include <cstddef>
#include <functional>

namespace hoarfrost {

// Runs `task(0) ... task(num_tasks - 1)` on at most `num_threads` threads, the calling one among them, and returns when all are done. Which
// thread runs a task is left open, so tasks must not depend on each other. One loop at a time uses the threads; a second caller, and a task
// that calls it, runs its tasks alone.
void parallel_for(size_t num_tasks, size_t num_threads, const std::function<void(size_t)>& task);

}  // namespace hoarfrost
