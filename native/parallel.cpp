#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace hoarfrost {

namespace {

class Crew {
public:
    void run(size_t num_tasks, size_t num_helpers, const std::function<void(size_t)>& task) {
        {
            std::lock_guard lock(mutex_);
            while (threads_.size() < num_helpers) threads_.emplace_back([this, index = threads_.size()] { serve(index); });
            task_ = &task;
            num_tasks_ = num_tasks;
            next_ = 0;
            num_helpers_ = num_helpers;
            num_working_ = num_helpers;
            failure_ = nullptr;
            ++loop_;
        }
        work_arrived_.notify_all();
        take_tasks();
        std::unique_lock lock(mutex_);
        work_done_.wait(lock, [this] { return num_working_ == 0; });
        if (failure_) std::rethrow_exception(failure_);
    }

private:
    [[noreturn]] void serve(size_t index) {
        size_t seen = 0;
        while (true) {
            {
                std::unique_lock lock(mutex_);
                work_arrived_.wait(lock, [&] { return loop_ != seen && index < num_helpers_; });
                seen = loop_;
            }
            take_tasks();
            std::lock_guard lock(mutex_);
            if (--num_working_ == 0) work_done_.notify_one();
        }
    }

    void take_tasks() {
        try {
            for (size_t i = next_++; i < num_tasks_; i = next_++) (*task_)(i);
        } catch (...) {
            std::lock_guard lock(mutex_);
            failure_ = std::current_exception();
        }
    }

    std::mutex mutex_;
    std::condition_variable work_arrived_, work_done_;
    std::vector<std::thread> threads_;
    const std::function<void(size_t)>* task_ = nullptr;
    std::atomic<size_t> next_ = 0;
    size_t num_tasks_ = 0, num_helpers_ = 0, num_working_ = 0, loop_ = 0;
    std::exception_ptr failure_;
};

// Never destroyed: its threads wait until the process ends. A forked child has none of them and starts over with a crew of its own.
std::atomic<Crew*> crew = nullptr;
std::atomic_flag busy;

Crew& the_crew() {
    if (crew == nullptr) {
        crew = new Crew;
#if !defined(_WIN32)
        static const int registered = pthread_atfork(nullptr, nullptr, [] {
            crew = nullptr;
            busy.clear();
        });
        (void)registered;
#endif
    }
    return *crew;
}

}  // namespace

void parallel_for(size_t num_tasks, size_t num_threads, const std::function<void(size_t)>& task) {
    const size_t num_helpers = std::min(num_tasks, num_threads) <= 1 ? 0 : std::min(num_tasks, num_threads) - 1;
    if (num_helpers == 0 || busy.test_and_set()) {
        for (size_t i = 0; i < num_tasks; ++i) task(i);
        return;
    }
    try {
        the_crew().run(num_tasks, num_helpers, task);
    } catch (...) {
        busy.clear();
        throw;
    }
    busy.clear();
}

}  // namespace hoarfrost
