#include "matrix.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "lanes.hpp"
#include "team.hpp"

namespace hoarfrost {

namespace {

constexpr size_t max_tile_rows = 5;    // 5 x 2 sums, 2 weights and 1 input leave registers for addresses among the 16 of AVX2
constexpr size_t block_rows = 48;      // rows that pass a panel while it is in the nearest cache
constexpr size_t least_work = 1 << 15;  // multiply-adds that are worth waking another thread
constexpr size_t stream_ahead = 4096;     // bytes: one stream of plain loads leaves half of what the memory could give unused
constexpr std::align_val_t alignment{64};

size_t lanes_of(InstructionSet instruction_set) { return instruction_set == InstructionSet::avx512 ? 16 : 8; }

struct Problem {
    const float* bias;  // null: none
    size_t num_inputs, num_outputs;
    FloatRows rows;
    float* out;
    size_t out_stride;
    Onto onto;
};

// A few rows input by input: entry (row, input) at `input * num_rows + row`. So a tile reads its rows, too, from front to back.
void interleave(const float* rows, size_t row_stride, size_t num_rows, size_t num_inputs, float* tile) {
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t i = 0; i < num_inputs; ++i) tile[i * num_rows + r] = rows[r * row_stride + i];
}

// Asks for a cache line that will be read soon. Harmless where it lies behind the end.
HOARFROST_INLINE void prefetch(const void* address) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

// sums [num_rows][num_panels * 2 registers] of `num_rows` interleaved rows times `num_panels` panels side by side. Meanwhile as many weights are
// fetched from `ahead` on (null: none).
template <size_t num_rows, size_t num_panels, size_t lanes, class Weight>
HOARFROST_INLINE void multiply_tile(const float* tile, const Weight* panels, size_t num_inputs, const Weight* ahead, float* sums) {
    constexpr size_t inputs_per_line = 64 / (2 * lanes * sizeof(Weight)) > 0 ? 64 / (2 * lanes * sizeof(Weight)) : 1;
    using L = Lanes<lanes>;
    L totals[num_rows][2 * num_panels];
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c] = L::all(0.0f);
    for (size_t i = 0; i < num_inputs; ++i) {
        if (ahead != nullptr && i % inputs_per_line == 0)
            for (size_t line = 0; line < 2 * lanes * sizeof(Weight) * inputs_per_line; line += 64)
                prefetch(reinterpret_cast<const char*>(ahead + i * 2 * lanes) + line);
        L weights[2 * num_panels];
        for (size_t p = 0; p < num_panels; ++p)
            L::load_two(panels + (p * num_inputs + i) * 2 * lanes, weights[2 * p], weights[2 * p + 1]);
        for (size_t r = 0; r < num_rows; ++r) {
            const L input = L::all(tile[i * num_rows + r]);
            for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c] = input * weights[c] + totals[r][c];
        }
    }
    for (size_t r = 0; r < num_rows; ++r)
        for (size_t c = 0; c < 2 * num_panels; ++c) totals[r][c].store(sums + (r * 2 * num_panels + c) * lanes);
}

HOARFROST_INLINE void deliver(const Problem& problem, size_t first_row, size_t num_rows, size_t first_output, size_t width,
                              const float* sums) {
    const size_t count = std::min(width, problem.num_outputs - first_output);
    for (size_t r = 0; r < num_rows; ++r, sums += width) {
        float* out = problem.out + (first_row + r) * problem.out_stride + first_output;
        for (size_t j = 0; j < count; ++j) {
            const float sum = problem.bias == nullptr ? sums[j] : sums[j] + problem.bias[first_output + j];
            out[j] = problem.onto == Onto::sum ? out[j] + sum : sum;
        }
    }
}

// `weights` are those of panel `panel` and the ones behind it.
template <size_t num_rows, size_t num_panels, size_t lanes, class Weight>
HOARFROST_INLINE void run_tile(const Problem& problem, const float* tile, const Weight* weights, const Weight* ahead, size_t first_row,
                               size_t panel) {
    constexpr size_t width = 2 * lanes;
    alignas(64) float sums[num_rows * num_panels * width];
    multiply_tile<num_rows, num_panels, lanes>(tile, weights, problem.num_inputs, ahead, sums);
    deliver(problem, first_row, num_rows, panel * width, num_panels * width, sums);
}

// The heights of the tiles that `num_rows` rows are cut into: nearly equal, so that no tile is left with a row or two.
size_t next_height(size_t num_rows_left) {
    const size_t num_tiles = (num_rows_left + max_tile_rows - 1) / max_tile_rows;
    return (num_rows_left + num_tiles - 1) / num_tiles;
}

// One panel for a block of rows; `tiles` holds its tiles one behind the other. The first tile reads the panel from memory, the others find it in
// the nearest cache and leave the memory idle: the last one fetches the next panel.
template <size_t lanes, class Weight>
HOARFROST_INLINE void run_panel(const Problem& problem, const float* tiles, const Weight* weights, size_t row, size_t last_row, size_t panel) {
    const size_t first_row = row;
    while (row < last_row) {
        const size_t height = next_height(last_row - row);
        const Weight* ahead = row == first_row ? weights + stream_ahead / sizeof(Weight) : nullptr;
        if (row > first_row && row + height == last_row) ahead = weights + problem.num_inputs * 2 * lanes;
        switch (height) {
            case 1: run_tile<1, 1, lanes>(problem, tiles, weights, ahead, row, panel); break;
            case 2: run_tile<2, 1, lanes>(problem, tiles, weights, ahead, row, panel); break;
            case 3: run_tile<3, 1, lanes>(problem, tiles, weights, ahead, row, panel); break;
            case 4: run_tile<4, 1, lanes>(problem, tiles, weights, ahead, row, panel); break;
            default: run_tile<max_tile_rows, 1, lanes>(problem, tiles, weights, ahead, row, panel); break;
        }
        row += height;
        tiles += height * problem.num_inputs;
    }
}

// One tile in all. Few rows leave too few sums to hide the latency of an addition: they take several panels at once.
template <size_t num_rows, size_t num_together, size_t lanes, class Weight>
HOARFROST_INLINE void run_few_rows(const Problem& problem, const Weight* panels, size_t panel, size_t last_panel) {
    const size_t panel_size = problem.num_inputs * 2 * lanes;
    const auto room = std::make_unique_for_overwrite<float[]>(num_rows * problem.num_inputs);
    interleave(problem.rows.data, problem.rows.stride, num_rows, problem.num_inputs, room.get());
    for (; panel + num_together <= last_panel; panel += num_together) {
        const Weight* weights = panels + panel * panel_size;
        run_tile<num_rows, num_together, lanes>(problem, room.get(), weights, weights + stream_ahead / sizeof(Weight), 0, panel);
    }
    for (; panel < last_panel; ++panel) {
        const Weight* weights = panels + panel * panel_size;
        run_tile<num_rows, 1, lanes>(problem, room.get(), weights, weights + stream_ahead / sizeof(Weight), 0, panel);
    }
}

// Rows in blocks, so that a block's rows stay in the cache while all panels pass.
template <size_t lanes, class Weight>
HOARFROST_INLINE void run_blocks(const Problem& problem, const Weight* panels, size_t first_panel, size_t last_panel) {
    const size_t num_inputs = problem.num_inputs, num_rows = problem.rows.count, panel_size = num_inputs * 2 * lanes;
    const auto tiles = std::make_unique_for_overwrite<float[]>(std::min(block_rows, num_rows) * num_inputs);
    for (size_t first_row = 0; first_row < num_rows; first_row += block_rows) {
        const size_t last_row = std::min(first_row + block_rows, num_rows);
        for (size_t row = first_row; row < last_row;) {
            const size_t height = next_height(last_row - row);
            interleave(problem.rows.data + row * problem.rows.stride, problem.rows.stride, height, num_inputs,
                       tiles.get() + (row - first_row) * num_inputs);
            row += height;
        }
        for (size_t panel = first_panel; panel < last_panel; ++panel)
            run_panel<lanes>(problem, tiles.get(), panels + panel * panel_size, first_row, last_row, panel);
    }
}

template <size_t lanes, class Weight>
HOARFROST_INLINE void run_panels(const Problem& problem, const Weight* panels, size_t first_panel, size_t last_panel) {
    switch (problem.rows.count) {
        case 1: return run_few_rows<1, 4, lanes>(problem, panels, first_panel, last_panel);
        case 2: return run_few_rows<2, 2, lanes>(problem, panels, first_panel, last_panel);
        case 3: return run_few_rows<3, 2, lanes>(problem, panels, first_panel, last_panel);
        case 4: return run_few_rows<4, 1, lanes>(problem, panels, first_panel, last_panel);
        case 5: return run_few_rows<5, 1, lanes>(problem, panels, first_panel, last_panel);
        case 6: return run_few_rows<6, 1, lanes>(problem, panels, first_panel, last_panel);
        default: return run_blocks<lanes>(problem, panels, first_panel, last_panel);
    }
}

// Spelled out, not `run_with`: each instruction set has its own number of lanes, and these bodies are too large to compile in vain.
#if HOARFROST_X86
template <class Weight>
HOARFROST_AVX2 void run_panels_avx2(const Problem& problem, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_panels<8>(problem, panels, first_panel, last_panel);
}

template <class Weight>
HOARFROST_AVX512 void run_panels_avx512(const Problem& problem, const Weight* panels, size_t first_panel, size_t last_panel) {
    run_panels<16>(problem, panels, first_panel, last_panel);
}
#endif

template <class Weight>
void run_panels_with(InstructionSet instruction_set, const Problem& problem, const Weight* panels, size_t first_panel, size_t last_panel) {
#if HOARFROST_X86
    if (instruction_set == InstructionSet::avx512) return run_panels_avx512(problem, panels, first_panel, last_panel);
    if (instruction_set == InstructionSet::avx2) return run_panels_avx2(problem, panels, first_panel, last_panel);
#endif
    (void)instruction_set;
    run_panels<8>(problem, panels, first_panel, last_panel);
}

// Where entry (output, input) of a matrix lies in its panels: bfloat16 alternates between the two registers.
template <class Weight>
size_t place_in_panels(size_t output, size_t input, size_t num_inputs, size_t lanes) {
    const size_t panel = output / (2 * lanes), within = output % (2 * lanes);
    const size_t lane = sizeof(Weight) == 2 ? within % lanes * 2 + within / lanes : within;
    return (panel * num_inputs + input) * 2 * lanes + lane;
}

template <class Weight>
std::unique_ptr<Weight[], void (*)(Weight*)> aligned_zeros(size_t count) {
    auto* memory = static_cast<Weight*>(::operator new(count * sizeof(Weight), alignment));
    std::fill_n(memory, count, Weight{});
    return {memory, [](Weight* pointer) { ::operator delete(pointer, alignment); }};
}

}  // namespace

template <class Weight>
size_t Matrix<Weight>::panel_width() const {
    return 2 * lanes_of(instruction_set_);
}

template <class Weight>
Matrix<Weight>::Matrix(const Weight* weight, size_t num_outputs, size_t num_inputs, std::vector<float> bias,
                       InstructionSet instruction_set)
    : num_outputs_(num_outputs),
      num_inputs_(num_inputs),
      num_panels_((num_outputs + 2 * lanes_of(instruction_set) - 1) / (2 * lanes_of(instruction_set))),
      instruction_set_(instruction_set),
      bias_(std::move(bias)),
      panels_(aligned_zeros<Weight>(num_panels_ * num_inputs * panel_width())) {
    for (size_t output = 0; output < num_outputs; ++output)
        for (size_t input = 0; input < num_inputs; ++input)
            panels_[place_in_panels<Weight>(output, input, num_inputs, panel_width() / 2)] = weight[output * num_inputs + input];
}

template <class Weight>
size_t Matrix<Weight>::num_bytes() const {
    return num_panels_ * num_inputs_ * panel_width() * sizeof(Weight) + bias_.size() * sizeof(float);
}

template <class Weight>
void Matrix<Weight>::multiply(const FloatRows& rows, float* out, size_t out_stride, Onto onto, size_t num_threads) const {
    const Problem problem{bias_.empty() ? nullptr : bias_.data(), num_inputs_, num_outputs_, rows, out, out_stride, onto};
    const size_t work_per_panel = std::max<size_t>(1, rows.count * num_inputs_ * panel_width());
    split_among_team(num_threads, num_panels_, (least_work + work_per_panel - 1) / work_per_panel,
                     [&](size_t first, size_t last) { run_panels_with(instruction_set_, problem, panels_.get(), first, last); });
}

template class Matrix<float>;
template class Matrix<BFloat16>;

}  // namespace hoarfrost
