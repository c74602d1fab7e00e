// The body of page_attention.cpp, included once per instruction set inside a namespace of its own and a region compiled for that set.
// VECTOR_FLOATS is the number of floats that one register of the set holds; sixteen lanes are worked on at a time in any case, so that
// sums are taken in the same order everywhere.

#if defined(__GNUC__) || defined(__clang__)
typedef float Vector __attribute__((vector_size(4 * VECTOR_FLOATS)));
typedef float UnalignedVector __attribute__((vector_size(4 * VECTOR_FLOATS), aligned(4), may_alias));
constexpr size_t vector_floats = VECTOR_FLOATS;
#else
typedef float Vector;
typedef float UnalignedVector;
constexpr size_t vector_floats = 1;
#endif
constexpr size_t num_vectors = num_lanes / vector_floats;

struct Lanes {
    Vector parts[num_vectors];
};

HOARFROST_INLINE void load(Lanes& lanes, const float* place) {
    for (size_t i = 0; i < num_vectors; ++i) lanes.parts[i] = reinterpret_cast<const UnalignedVector*>(place)[i];
}

HOARFROST_INLINE void store(const Lanes& lanes, float* place) {
    for (size_t i = 0; i < num_vectors; ++i) reinterpret_cast<UnalignedVector*>(place)[i] = lanes.parts[i];
}

HOARFROST_INLINE void add_product(Lanes& sum, const Lanes& a, const Lanes& b) {
    for (size_t i = 0; i < num_vectors; ++i) sum.parts[i] += a.parts[i] * b.parts[i];
}

HOARFROST_INLINE void add_scaled(Lanes& sum, float factor, const Lanes& b) {
    for (size_t i = 0; i < num_vectors; ++i) sum.parts[i] += factor * b.parts[i];
}

// Halves are added until one register is left, then its lanes.
HOARFROST_INLINE float sum_of(Lanes lanes) {
    for (size_t half = num_vectors / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) lanes.parts[i] += lanes.parts[i + half];
    float values[vector_floats];
    *reinterpret_cast<UnalignedVector*>(values) = lanes.parts[0];
    float sums[4];
    for (size_t i = 0; i < 4; ++i) sums[i] = values[i % vector_floats];
    if constexpr (vector_floats >= 16)
        for (size_t i = 0; i < 4; ++i) sums[i] = (values[i] + values[i + 8]) + (values[i + 4] + values[i + 12]);
    if constexpr (vector_floats == 8)
        for (size_t i = 0; i < 4; ++i) sums[i] = values[i] + values[i + 4];
    return vector_floats == 1 ? values[0] : (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// scores[i * block_rows + j] = queries[i] . keys[j] for `count` keys and Q queries.
template <size_t Q>
HOARFROST_INLINE void multiply(const float* queries, const float* keys, size_t count, size_t dim, float* scores) {
    for (size_t j = 0; j < count; ++j, keys += dim) {
        Lanes sums[Q] = {}, key, query;
        for (size_t d = 0; d < dim; d += num_lanes) {
            load(key, keys + d);
            for (size_t i = 0; i < Q; ++i) {
                load(query, queries + i * dim + d);
                add_product(sums[i], query, key);
            }
        }
        for (size_t i = 0; i < Q; ++i) scores[i * block_rows + j] = sum_of(sums[i]);
    }
}

// sums[i] += weights[i * block_rows + j] * values[j] for `count` values and Q queries.
template <size_t Q>
HOARFROST_INLINE void accumulate(const float* weights, const float* values, size_t count, size_t dim, float* sums) {
    for (size_t d = 0; d < dim; d += num_lanes) {
        Lanes totals[Q], value;
        for (size_t i = 0; i < Q; ++i) load(totals[i], sums + i * dim + d);
        for (size_t j = 0; j < count; ++j) {
            load(value, values + j * dim + d);
            for (size_t i = 0; i < Q; ++i) add_scaled(totals[i], weights[i * block_rows + j], value);
        }
        for (size_t i = 0; i < Q; ++i) store(totals[i], sums + i * dim + d);
    }
}

// e^x for x <= 0, zero below -87, good to 2 units in the last place; branch-free, so that loops over it vectorise.
HOARFROST_INLINE float exp_nonpositive(float x) {
    const float clamped = x > -87.0f ? x : -87.0f;
    const float shifted = clamped * 1.44269504f + 12582912.0f;  // the integer next to it stands in the low bits
    const float whole = shifted - 12582912.0f;
    const float rest = (clamped - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    const float fraction = series * rest * rest + rest + 1.0f;
    const uint32_t power = std::bit_cast<uint32_t>(shifted) << 23;
    const float value = std::bit_cast<float>(std::bit_cast<uint32_t>(fraction) + power);
    return x > -87.0f ? value : 0.0f;
}

HOARFROST_INLINE float maximum_of(const float* values) {
    float best[num_lanes];
    for (size_t i = 0; i < num_lanes; ++i) best[i] = values[i];
    for (size_t j = num_lanes; j < block_rows; j += num_lanes)
        for (size_t i = 0; i < num_lanes; ++i) best[i] = best[i] > values[j + i] ? best[i] : values[j + i];
    float maximum = best[0];
    for (size_t i = 1; i < num_lanes; ++i) maximum = maximum > best[i] ? maximum : best[i];
    return maximum;
}

// Turns one row of scores into weights relative to the running maximum, and brings what was summed before to the same measure.
HOARFROST_INLINE void soften(float* scores, size_t dim, SoftmaxState& state, float* sums) {
    const float maximum = std::max(state.maximum, maximum_of(scores));
    if (maximum == -infinity) {
        std::fill_n(scores, block_rows, 0.0f);
        return;
    }
    for (size_t j = 0; j < block_rows; ++j) scores[j] = exp_nonpositive(scores[j] - maximum);
    Lanes total = {}, part, one;
    for (size_t i = 0; i < num_vectors; ++i) one.parts[i] = Vector{} + 1.0f;
    for (size_t j = 0; j < block_rows; j += num_lanes) {
        load(part, scores + j);
        add_product(total, part, one);
    }
    const float correction = exp_nonpositive(state.maximum - maximum);
    state = {maximum, state.total * correction + sum_of(total)};
    if (correction != 1.0f)
        for (size_t d = 0; d < dim; ++d) sums[d] *= correction;
}

// `Q` query rows from `row` on against the rows of a block.
template <size_t Q>
HOARFROST_INLINE void attend_rows(HeadState& head, const FloatPieces& pieces, size_t row, const RowBias& bias) {
    const size_t dim = head.padded_dim;
    float* const sums = head.sums.data() + row * dim;
    float scores[Q * block_rows];
    std::fill_n(scores, Q * block_rows, -infinity);
    for (size_t p = 0, place = 0; p < pieces.size; place += pieces.counts[p++])
        multiply<Q>(head.queries.data() + row * dim, pieces.keys[p], pieces.counts[p], dim, scores + place);
    for (size_t i = 0; i < Q; ++i) {
        bias.add_to(scores + i * block_rows, row + i);
        soften(scores + i * block_rows, dim, head.states[row + i], sums + i * dim);
    }
    for (size_t p = 0, place = 0; p < pieces.size; place += pieces.counts[p++])
        accumulate<Q>(scores + place, pieces.values[p], pieces.counts[p], dim, sums);
}

inline void attend_block(HeadState& head, const FloatPieces& pieces, size_t first, size_t last, const RowBias& bias) {
    size_t row = first;
    for (; row + 4 <= last; row += 4) attend_rows<4>(head, pieces, row, bias);
    if (last - row == 3) attend_rows<3>(head, pieces, row, bias);
    if (last - row == 2) attend_rows<2>(head, pieces, row, bias);
    if (last - row == 1) attend_rows<1>(head, pieces, row, bias);
}

template <class Scalar>
void convert(const Scalar* rows, size_t count, size_t dim, size_t padded_dim, float* out) {
    for (size_t j = 0; j < count; ++j, rows += dim, out += padded_dim) {
        for (size_t d = 0; d < dim; ++d) out[d] = to_float(rows[d]);
        std::fill(out + dim, out + padded_dim, 0.0f);
    }
}

// Collects rows until a block is full, then attends to it. Rows that are float32 and whole lanes wide are read where they lie.
template <class Scalar>
class BlockReader {
public:
    BlockReader(HeadState& head, size_t head_dim, size_t first, size_t last) : head_(head), head_dim_(head_dim), first_(first), last_(last) {}

    // At most `block_rows` rows.
    void add(const Scalar* keys, const Scalar* values, size_t count) {
        if (pieces_.num_rows + count > block_rows) flush({});
        pieces_.keys[pieces_.size] = as_floats(keys, count, 0);
        pieces_.values[pieces_.size] = as_floats(values, count, block_rows);
        pieces_.counts[pieces_.size++] = count;
        pieces_.num_rows += count;
    }

    void flush(const RowBias& bias) {
        if (pieces_.num_rows > 0) attend_block(head_, pieces_, first_, last_, bias);
        pieces_.size = pieces_.num_rows = 0;
    }

private:
    const float* as_floats(const Scalar* rows, size_t count, size_t place) {
        if constexpr (std::is_same_v<Scalar, float>)
            if (head_dim_ == head_.padded_dim) return rows;
        float* const out = head_.scratch.data() + (place + pieces_.num_rows) * head_.padded_dim;
        convert(rows, count, head_dim_, head_.padded_dim, out);
        return out;
    }

    HeadState& head_;
    size_t head_dim_, first_, last_;
    FloatPieces pieces_;
};

template <class Scalar>
void read_queries(const PageAttention<Scalar>& problem, size_t kv_head, HeadState& head) {
    const size_t group = problem.num_heads / problem.num_kv_heads;
    float* out = head.queries.data();
    for (size_t row = 0; row < problem.num_rows; ++row)
        for (size_t i = 0; i < group; ++i, out += head.padded_dim) {
            const Scalar* query = problem.queries + (kv_head * group + i) * problem.query_head_stride + row * problem.query_row_stride;
            for (size_t d = 0; d < problem.head_dim; ++d) out[d] = to_float(query[d]) * problem.scale;
        }
}

template <class Scalar>
void attend_local(const PageAttention<Scalar>& problem, size_t kv_head, HeadState& head) {
    const Scalar* keys = problem.local_keys + kv_head * problem.key_head_stride;
    const Scalar* values = problem.local_values + kv_head * problem.value_head_stride;
    const size_t num_past = problem.num_local - problem.num_rows, group = problem.num_heads / problem.num_kv_heads;
    BlockReader<Scalar> reader(head, problem.head_dim, 0, problem.num_rows * group);
    for (size_t start = 0; start < problem.num_local;) {
        const bool masked = start >= num_past && problem.num_rows > 1;
        const size_t end = start < num_past ? num_past : problem.num_local, count = std::min(block_rows, end - start);
        reader.add(keys + start * problem.head_dim, values + start * problem.head_dim, count);
        RowBias bias;
        bias.visible = problem.visible;
        bias.num_hidden = start < num_past ? problem.num_hidden : nullptr;
        bias.num_rows = problem.num_rows;
        bias.group = group;
        bias.column = masked ? start - num_past : 0;
        bias.count = count;
        bias.first_hidden = static_cast<std::ptrdiff_t>(problem.first_hidden) - static_cast<std::ptrdiff_t>(start);
        bias.masked = masked;
        reader.flush(bias);
        start += count;
    }
}

template <class Scalar>
void attend_fetched(const PageAttention<Scalar>& problem, size_t kv_head, HeadState& head) {
    const size_t group = problem.num_heads / problem.num_kv_heads, page_scalars = problem.page_size * problem.head_dim;
    for (size_t list = 0; list < problem.num_lists; ++list) {
        const size_t first = problem.num_lists > 1 ? list * group : 0;
        BlockReader<Scalar> reader(head, problem.head_dim, first, problem.num_lists > 1 ? first + group : problem.num_rows * group);
        const size_t place = (kv_head * problem.num_lists + list) * problem.list_length;
        for (size_t i = place; i < place + problem.list_length; ++i) {
            if (problem.page_rows[i] <= 0) continue;
            const size_t first_row = problem.first_rows != nullptr ? static_cast<size_t>(problem.first_rows[i]) : 0;
            const Scalar* keys = problem.pool + static_cast<size_t>(problem.slots[i]) * 2 * page_scalars + first_row * problem.head_dim;
            for (size_t start = 0, rows = static_cast<size_t>(problem.page_rows[i]); start < rows; start += block_rows)
                reader.add(keys + start * problem.head_dim, keys + page_scalars + start * problem.head_dim, std::min(block_rows, rows - start));
        }
        reader.flush({});
    }
}

template <class Scalar>
void attend_summaries(const PageAttention<Scalar>& problem, size_t kv_head, HeadState& head) {
    const size_t group = problem.num_heads / problem.num_kv_heads, offset = kv_head * problem.num_summaries * problem.head_dim;
    for (size_t list = 0; list < problem.num_lists; ++list) {
        const size_t first = problem.num_lists > 1 ? list * group : 0;
        BlockReader<float> reader(head, problem.head_dim, first, problem.num_lists > 1 ? first + group : problem.num_rows * group);
        const float* log_counts = problem.log_counts + (kv_head * problem.num_lists + list) * problem.num_summaries;
        for (size_t start = 0; start < problem.num_summaries; start += block_rows) {
            const size_t count = std::min(block_rows, problem.num_summaries - start), place = offset + start * problem.head_dim;
            reader.add(problem.mean_keys + place, problem.mean_values + place, count);
            RowBias bias;
            bias.log_counts = log_counts + start;
            bias.count = count;
            reader.flush(bias);
        }
    }
}

template <class Scalar>
void attend_head(const PageAttention<Scalar>& problem, size_t kv_head) {
    const size_t group = problem.num_heads / problem.num_kv_heads;
    HeadState head(problem.num_rows * group, problem.head_dim);
    read_queries(problem, kv_head, head);
    attend_local(problem, kv_head, head);
    attend_fetched(problem, kv_head, head);
    attend_summaries(problem, kv_head, head);
    const float* sums = head.sums.data();
    for (size_t row = 0, index = 0; row < problem.num_rows; ++row)
        for (size_t i = 0; i < group; ++i, ++index, sums += head.padded_dim) {
            Scalar* out = problem.out + (row * problem.num_heads + kv_head * group + i) * problem.head_dim;
            for (size_t d = 0; d < problem.head_dim; ++d) assign(out[d], sums[d] / head.states[index].total);
        }
}
