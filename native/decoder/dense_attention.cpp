#include "decoder/dense_attention.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/instruction_set.hpp"
#include "base/lanes.hpp"

namespace hoarfrost {

namespace {

using L = Lanes<8>;
constexpr size_t lanes = 8;
constexpr size_t scores_bytes = 1 << 18;  // of one task: half of a common second-level cache
constexpr size_t key_block = 128;
constexpr size_t most_rows = 12;  // of one task: enough for what is loaded to be used, few enough for threads to share few heads evenly
constexpr size_t least_work = 1 << 14;  // multiply-adds that are worth waking another thread
constexpr float infinity = std::numeric_limits<float>::infinity();

// Rows first..first + count of one KV head: row r is query head r / num_rows of its group and query row r % num_rows.
template <class Stored>
struct Task {
    const DenseAttention<Stored>& problem;
    size_t kv_head, first, count;
    const Stored *keys, *values;
    size_t score_stride;
    float *queries, *scores, *sums, *mixed;

    size_t group() const { return problem.num_heads / problem.num_kv_heads; }
    size_t head_of(size_t row) const { return kv_head * group() + (first + row) / problem.num_rows; }
    size_t query_row_of(size_t row) const { return (first + row) % problem.num_rows; }
};

template <class Stored>
HOARFROST_INLINE void gather_queries(const Task<Stored>& task) {
    const auto& problem = task.problem;
    for (size_t row = 0; row < task.count; ++row) {
        const Stored* query = problem.queries + task.head_of(row) * problem.query_head_stride + task.query_row_of(row) * problem.query_row_stride;
        for (size_t i = 0; i < problem.head_dim; ++i) task.queries[row * problem.head_dim + i] = to_float(query[i]) * problem.scale;
    }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define HOARFROST_SHUFFLES 1
#endif
#endif

// sums[i] = sum_of(totals[i]): the same additions in the same order, for four at once.
HOARFROST_INLINE void sums_of_four(const L totals[4], float* sums) {
#ifdef HOARFROST_SHUFFLES
    typedef float Four __attribute__((vector_size(16)));
    Four halves[4];
    for (size_t k = 0; k < 4; ++k) {
        const auto v = totals[k].v;
        halves[k] = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
    }
    const Four first = __builtin_shufflevector(halves[0], halves[1], 0, 1, 4, 5) + __builtin_shufflevector(halves[0], halves[1], 2, 3, 6, 7);
    const Four second = __builtin_shufflevector(halves[2], halves[3], 0, 1, 4, 5) + __builtin_shufflevector(halves[2], halves[3], 2, 3, 6, 7);
    const Four all = __builtin_shufflevector(first, second, 0, 2, 4, 6) + __builtin_shufflevector(first, second, 1, 3, 5, 7);
    std::memcpy(sums, &all, sizeof(all));
#else
    for (size_t k = 0; k < 4; ++k) sums[k] = sum_of(totals[k]);
#endif
}

template <size_t num_rows, size_t num_keys, class Stored>
HOARFROST_INLINE void score_tile(const float* queries, const Stored* keys, size_t head_dim, float* scores, size_t score_stride) {
    L totals[num_rows][num_keys];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t k = 0; k < num_keys; ++k) totals[r][k] = L::all(0.0f);
    for (size_t i = 0; i < head_dim; i += lanes) {
        L query[num_rows];
        for (size_t r = 0; r < num_rows; ++r) query[r] = L::load(queries + r * head_dim + i);
        for (size_t k = 0; k < num_keys; ++k) {
            const L key = L::load(keys + k * head_dim + i);
            for (size_t r = 0; r < num_rows; ++r) totals[r][k] = query[r] * key + totals[r][k];
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        if constexpr (num_keys == 4)
            sums_of_four(totals[r], scores + r * score_stride);
        else
            for (size_t k = 0; k < num_keys; ++k) scores[r * score_stride + k] = sum_of(totals[r][k]);
}

template <size_t num_rows, class Stored>
HOARFROST_INLINE void score_rows(const Task<Stored>& task, size_t row, size_t first_key, size_t last_key) {
    const size_t head_dim = task.problem.head_dim;
    const float* queries = task.queries + row * head_dim;
    float* scores = task.scores + row * task.score_stride;
    size_t key = first_key;
    for (; key + 4 <= last_key; key += 4) score_tile<num_rows, 4>(queries, task.keys + key * head_dim, head_dim, scores + key, task.score_stride);
    for (; key < last_key; ++key) score_tile<num_rows, 1>(queries, task.keys + key * head_dim, head_dim, scores + key, task.score_stride);
}

template <class Stored>
HOARFROST_INLINE void score(const Task<Stored>& task) {
    for (size_t key = 0; key < task.problem.num_keys; key += key_block) {
        const size_t last = std::min(key + key_block, task.problem.num_keys);
        size_t row = 0;
        for (; row + 3 <= task.count; row += 3) score_rows<3>(task, row, key, last);
        for (; row < task.count; ++row) score_rows<1>(task, row, key, last);
    }
}

template <class Stored>
HOARFROST_INLINE void hide(const Task<Stored>& task) {
    const auto& problem = task.problem;
    if (problem.visible == nullptr && !problem.is_causal) return;
    for (size_t row = 0; row < task.count; ++row) {
        const size_t query_row = task.query_row_of(row);
        float* own = task.scores + row * task.score_stride + problem.num_keys - problem.num_rows;
        const uint64_t* words = problem.visible == nullptr ? nullptr : problem.visible + query_row * problem.words_per_row;
        for (size_t key = 0; key < problem.num_rows; ++key)
            if (words == nullptr ? key > query_row : (words[key / 64] >> (key % 64) & 1) == 0) own[key] = -infinity;
    }
}

// Scores become their exponentials relative to the row's largest; the places behind the last key, up to a whole register, become zero.
template <class Stored>
HOARFROST_INLINE void exponentiate(const Task<Stored>& task) {
    for (size_t row = 0; row < task.count; ++row) {
        float* scores = task.scores + row * task.score_stride;
        std::fill(scores + task.problem.num_keys, scores + task.score_stride, -infinity);
        L largest = L::load(scores);
        for (size_t key = lanes; key < task.score_stride; key += lanes) largest = L::load(scores + key).max(largest);
        float parts[lanes];
        largest.store(parts);
        const L maximum = L::all(*std::max_element(parts, parts + lanes));
        for (size_t key = 0; key < task.score_stride; key += lanes) exp_of(L::load(scores + key) - maximum).store(scores + key);
    }
}

template <size_t num_rows>
HOARFROST_INLINE void sum_rows(const float* scores, size_t stride, size_t first_key, size_t last_key, float* sums) {
    float totals[num_rows];
    for (size_t r = 0; r < num_rows; ++r) totals[r] = sums[r];
    for (size_t key = first_key; key < last_key; ++key)
        for (size_t r = 0; r < num_rows; ++r) totals[r] += scores[r * stride + key];
    for (size_t r = 0; r < num_rows; ++r) sums[r] = totals[r];
}

template <size_t num_rows, size_t num_columns, class Stored>
HOARFROST_INLINE void mix_columns(const Task<Stored>& task, size_t row, size_t column, size_t first_key, size_t last_key) {
    const size_t head_dim = task.problem.head_dim;
    float* mixed = task.mixed + row * head_dim + column;
    const float* weights = task.scores + row * task.score_stride;
    L totals[num_rows][num_columns];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < num_columns; ++c) totals[r][c] = L::load(mixed + r * head_dim + c * lanes);
    for (size_t key = first_key; key < last_key; ++key) {
        L values[num_columns];
        for (size_t c = 0; c < num_columns; ++c) values[c] = L::load(task.values + key * head_dim + column + c * lanes);
        for (size_t r = 0; r < num_rows; ++r) {
            const L weight = L::all(weights[r * task.score_stride + key]);
            for (size_t c = 0; c < num_columns; ++c) totals[r][c] = weight * values[c] + totals[r][c];
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < num_columns; ++c) totals[r][c].store(mixed + r * head_dim + c * lanes);
}

template <size_t num_rows, size_t num_together, class Stored>
HOARFROST_INLINE void mix_rows(const Task<Stored>& task, size_t row, size_t first_key, size_t last_key) {
    size_t column = 0;
    for (; column + num_together * lanes <= task.problem.head_dim; column += num_together * lanes)
        mix_columns<num_rows, num_together>(task, row, column, first_key, last_key);
    for (; column < task.problem.head_dim; column += lanes) mix_columns<num_rows, 1>(task, row, column, first_key, last_key);
    sum_rows<num_rows>(task.scores + row * task.score_stride, task.score_stride, first_key, last_key, task.sums + row);
}

template <class Stored>
HOARFROST_INLINE void mix(const Task<Stored>& task) {
    std::fill_n(task.mixed, task.count * task.problem.head_dim, 0.0f);
    std::fill_n(task.sums, task.count, 0.0f);
    for (size_t key = 0; key < task.problem.num_keys; key += key_block) {
        const size_t last = std::min(key + key_block, task.problem.num_keys);
        size_t row = 0;
        for (; row + 6 <= task.count; row += 6) mix_rows<6, 2>(task, row, key, last);
        for (; row + 3 <= task.count; row += 3) mix_rows<3, 4>(task, row, key, last);
        for (; row < task.count; ++row) mix_rows<1, 8>(task, row, key, last);
    }
}

template <class Stored>
HOARFROST_INLINE void deliver(const Task<Stored>& task) {
    const auto& problem = task.problem;
    for (size_t row = 0; row < task.count; ++row) {
        Stored* out = problem.out + (task.query_row_of(row) * problem.num_heads + task.head_of(row)) * problem.head_dim;
        for (size_t i = 0; i < problem.head_dim; ++i) assign(out[i], task.mixed[row * problem.head_dim + i] / task.sums[row]);
    }
}

template <class Stored>
HOARFROST_INLINE void run_steps(const Task<Stored>& task) {
    gather_queries(task);
    score(task);
    hide(task);
    exponentiate(task);
    mix(task);
    deliver(task);
}

// How a problem is cut into tasks.
struct Cut {
    size_t score_stride, rows_per_head, tasks_per_head, rows_per_task, num_tasks;
};

template <class Stored>
Cut cut(const DenseAttention<Stored>& problem) {
    const size_t score_stride = (problem.num_keys + lanes - 1) / lanes * lanes;
    const size_t rows_per_head = problem.num_heads / problem.num_kv_heads * problem.num_rows;
    const size_t fitting = std::clamp<size_t>(scores_bytes / (sizeof(float) * score_stride) / 6 * 6, 6, most_rows);
    const size_t most_tasks = (rows_per_head + fitting - 1) / fitting;
    const size_t rows_per_task = std::min(((rows_per_head + most_tasks - 1) / most_tasks + 5) / 6 * 6, rows_per_head);
    const size_t tasks_per_head = (rows_per_head + rows_per_task - 1) / rows_per_task;
    return {score_stride, rows_per_head, tasks_per_head, rows_per_task, problem.num_kv_heads * tasks_per_head};
}

struct TaskMemory;

template <class Stored>
void run_task(const DenseAttention<Stored>& problem, const Cut& cut, size_t index) {
    const size_t kv_head = index / cut.tasks_per_head, first = index % cut.tasks_per_head * cut.rows_per_task;
    float* queries = kept_memory<TaskMemory, float>(cut.rows_per_task * (2 * problem.head_dim + 1 + cut.score_stride));
    float* mixed = queries + cut.rows_per_task * problem.head_dim;
    float* sums = mixed + cut.rows_per_task * problem.head_dim;
    const Task<Stored> task{problem,
                            kv_head,
                            first,
                            std::min(cut.rows_per_task, cut.rows_per_head - first),
                            problem.keys + kv_head * problem.kv_head_stride,
                            problem.values + kv_head * problem.kv_head_stride,
                            cut.score_stride,
                            queries,
                            sums + cut.rows_per_task,
                            sums,
                            mixed};
    run_with(best_instruction_set(), [&]() HOARFROST_INLINE_LAMBDA { run_steps(task); });
}

}  // namespace

template <class Stored>
void attend_dense(const DenseAttention<Stored>* problems, size_t num_problems, std::atomic<size_t>& next) {
    size_t index = next++, first = 0;  // the first task of the problem
    for (size_t p = 0; p < num_problems; ++p) {
        const Cut tasks = cut(problems[p]);
        for (; index < first + tasks.num_tasks; index = next++) run_task(problems[p], tasks, index - first);
        first += tasks.num_tasks;
    }
}

template <class Stored>
void attend_dense(const DenseAttention<Stored>& problem, size_t num_threads) {
    const Cut tasks = cut(problem);
    const size_t work = 2 * tasks.rows_per_head * problem.num_kv_heads * problem.num_keys * problem.head_dim;
    std::atomic<size_t> next = 0;
    run_team(std::min({num_threads, tasks.num_tasks, (work + least_work - 1) / least_work}),
             [&](const Member&) { attend_dense(&problem, 1, next); });
}

#define HOARFROST_INSTANTIATE(Stored)                                                        \
    template void attend_dense(const DenseAttention<Stored>*, size_t, std::atomic<size_t>&); \
    template void attend_dense(const DenseAttention<Stored>&, size_t);
HOARFROST_INSTANTIATE(float)
HOARFROST_INSTANTIATE(BFloat16)
#undef HOARFROST_INSTANTIATE

}  // namespace hoarfrost
