// Loops on the threads that torch computes with.
//
// torch's CPU products run on an OpenMP team, whose threads stay awake for a while after each loop: a loop that follows starts within a
// microsecond. A second set of threads would fight them for the cores, so ours borrow that team. It is looked up in the running process (the
// entry points are those of GCC's OpenMP, which LLVM's has too); where there is none, the calling thread does all the work.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>

namespace hoarfrost {

// One thread of a team: all of them run the same code, each takes its share of every loop, and they wait for each other where one reads what
// another wrote.
struct Member {
    size_t index = 0, team_size = 1;

    // Calls `body(begin, end)` with this member's part of 0..count, unless that is empty. No part is shorter than `grain`, the last one
    // excepted: short loops are left to the first members.
    template <class Body>
    void share(size_t count, size_t grain, const Body& body) const {
        const size_t num_parts = std::min(team_size, (count + grain - 1) / grain);
        if (index >= num_parts) return;
        const size_t begin = count * index / num_parts, end = count * (index + 1) / num_parts;
        if (begin < end) body(begin, end);
    }

    // Returns when all members have come here.
    void wait() const;
};

// Calls `run(context, member)` for every member of a team of at most `num_threads`, the calling thread among them; returns when all are done.
void run_team(size_t num_threads, void (*run)(const void* context, const Member& member), const void* context);

// The same with `body(member)`, which must not throw.
template <class Body>
void run_team(size_t num_threads, const Body& body) {
    if (num_threads <= 1) return body(Member{});
    run_team(num_threads, [](const void* context, const Member& member) { (*static_cast<const Body*>(context))(member); }, &body);
}

// Runs `task(0) ... task(num_tasks - 1)` on a team of at most `num_threads`. Whoever is free takes the next one, so tasks must not depend on
// each other. What a task throws is thrown here, when all are done.
void parallel_for(size_t num_tasks, size_t num_threads, const std::function<void(size_t)>& task);

// Room for `count` scalars that the calling thread keeps from call to call, with what was last written to it; one per `Purpose`, any type.
template <class Purpose, class Scalar>
Scalar* kept_memory(size_t count) {
    thread_local std::unique_ptr<Scalar[]> memory;
    thread_local size_t size = 0;
    if (size < count) {
        memory.reset();
        memory = std::make_unique_for_overwrite<Scalar[]>(count);
        size = count;
    }
    return memory.get();
}

}  // namespace hoarfrost
