#include "logits/noise.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "logits/best_keys.hpp"
#include "logits/largest_logit.hpp"
#include "base/team.hpp"

namespace hoarfrost {

namespace {

constexpr size_t tile_size = 256;  // places within one fit into a byte

// The finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
HOARFROST_INLINE uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    x ^= x >> 31;
    return x;
}

// The part of the hash that is the same in all streams.
HOARFROST_INLINE uint64_t token_key(uint64_t token_id) { return mix(token_id + 0xD1B54A32D192ED03u); }

HOARFROST_INLINE uint64_t token_bits(uint64_t stream, uint64_t token_id) { return mix(stream ^ token_key(token_id)); }

// An integer below 2^52 as a double: AVX2 has no such conversion, the bit pattern of 2^52 + integer needs none.
HOARFROST_INLINE double to_double(uint64_t integer) { return std::bit_cast<double>(integer | 0x4330000000000000u) - 0x1p52; }

// The top 53 bits as a point of the open interval (0, 1). The largest of the 2^53 values would round to 1 and have no finite noise.
HOARFROST_INLINE double unit_interval(uint64_t bits) {
    const double integer = to_double(bits >> 32) * 0x1p21 + to_double((bits >> 11) & 0x1FFFFFu);
    const double unit = (integer + 0.5) * 0x1p-53;
    return unit < 1.0 ? unit : 0x1.fffffffffffffp-1;
}

// Natural logarithm of a positive normal number, branch-free so that it vectorises, good to about 1e-15 relative.
// x = 2^exponent * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172, as its power series.
HOARFROST_INLINE double log_positive(double x) {
    constexpr uint64_t sqrt_half = 0x3FE6A09E667F3BCDu;
    const uint64_t shifted = std::bit_cast<uint64_t>(x) + (0x3FF0000000000000u - sqrt_half);
    const double exponent = to_double(shifted >> 52) - 1023.0;
    const double m = std::bit_cast<double>((shifted & 0x000FFFFFFFFFFFFFu) + sqrt_half);
    const double s = (m - 1.0) / (m + 1.0);
    const double z = s * s;
    double series = 1.0 / 19.0;
    for (int divisor = 17; divisor >= 1; divisor -= 2) series = series * z + 1.0 / divisor;
    return exponent * 0.6931471805599453 + 2.0 * s * series;
}

HOARFROST_INLINE float gumbel(uint64_t bits) { return static_cast<float>(-log_positive(-log_positive(unit_interval(bits)))); }

constexpr float infinity = std::numeric_limits<float>::infinity();

// The keys of tokens 0 ... count - 1 (and some more): computed once per thread.
const uint64_t* token_keys(size_t count, InstructionSet instruction_set) {
    thread_local std::vector<uint64_t> keys;
    const size_t padded = (count + tile_size - 1) / tile_size * tile_size;
    if (keys.size() < padded) {
        keys.resize(padded);
        run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
            for (size_t i = 0; i < padded; ++i) keys[i] = token_key(i);
        });
    }
    return keys.data();
}

// Parts into which a row is cut, so that all threads have work; shorter ones would not be worth the handing out.
size_t num_parts_of_row(size_t vocab_size, size_t num_rows, size_t num_threads) {
    constexpr size_t shortest_part = 2048;
    return std::clamp<size_t>(num_threads / std::max<size_t>(num_rows, 1), 1, std::max<size_t>(vocab_size / shortest_part, 1));
}

// Of the tokens `start` ... `start + count` (a tile, padded with -inf) offers those that may be among the best. With u = 1 - e the noise is
// at most -log(e), so a token of score s reaches the bound b only if e <= exp(s - b): one hash, one exponential and no logarithm for most.
template <class Logit>
HOARFROST_INLINE void offer_tile(const Logit* row, size_t start, size_t count, float maximum, float temperature, uint64_t stream,
                                 const uint64_t* keys, BestKeys& best) {
    using L = Lanes<8>;
    constexpr float slack = 0.01f, relative_slack = 1e-6f;
    alignas(32) float scores[tile_size], excess[tile_size];
    uint64_t bits[tile_size];
    const float lowered = best.bound() - std::abs(best.bound()) * relative_slack - slack;
    for (size_t i = 0; i < count; ++i) scores[i] = (to_float(row[start + i]) - maximum) / temperature;
    for (size_t i = count; i < tile_size; ++i) scores[i] = -infinity;
    for (size_t i = 0; i < tile_size; ++i) bits[i] = mix(stream ^ keys[start + i]);
    for (size_t i = 0; i < tile_size; ++i) excess[i] = static_cast<float>(to_double(~bits[i] >> 40)) * 0x1p-24f;
    for (size_t i = 0; i < tile_size; i += L::width) {
        const L reach = exp_of(L::load(scores + i) * L::all(1.0f - relative_slack) - L::all(lowered));
        (L::load(excess + i) - reach).store(excess + i);
    }
    uint64_t reaching_bits[tile_size];
    uint8_t reaching[tile_size];
    size_t num_reaching = 0;
    for (size_t first = 0; first < count; first += 4 * L::width) {
        L least = L::load(excess + first);
        for (size_t part = 1; part < 4; ++part) least = least.min(L::load(excess + first + part * L::width));
        float parts[L::width];
        least.store(parts);
        if (*std::min_element(parts, parts + L::width) > 0.0f) continue;
        for (size_t i = first; i < std::min(first + 4 * L::width, count); ++i) {
            reaching[num_reaching] = static_cast<uint8_t>(i);
            reaching_bits[num_reaching] = bits[i];
            num_reaching += excess[i] <= 0.0f && scores[i] > -infinity;
        }
    }
    float noise[tile_size];
    for (size_t i = 0; i < num_reaching; ++i) noise[i] = gumbel(reaching_bits[i]);
    for (size_t i = 0; i < num_reaching; ++i) {
        const float score = scores[reaching[i]] + noise[i];
        if (score >= best.bound()) best.offer(score, start + reaching[i]);
    }
}

}  // namespace

uint64_t noise_stream(uint64_t seed, uint64_t position) { return mix(seed ^ mix(position + 0x9E3779B97F4A7C15u)); }

void noise_bits(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, uint64_t* bits) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        for (size_t i = 0; i < count; ++i) bits[i] = token_bits(stream, static_cast<uint64_t>(token_ids[i]));
    });
}

void gumbel_noise(uint64_t stream, const int64_t* token_ids, size_t count, InstructionSet instruction_set, float* values) {
    run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
        // Integer hashing and float arithmetic vectorise better apart; a tile keeps what passes between them in the first-level cache.
        uint64_t bits[tile_size];
        for (size_t start = 0; start < count; start += tile_size) {
            const size_t end = std::min(count - start, tile_size);
            if (token_ids == nullptr)
                for (size_t i = 0; i < end; ++i) bits[i] = token_bits(stream, start + i);
            else
                for (size_t i = 0; i < end; ++i) bits[i] = token_bits(stream, static_cast<uint64_t>(token_ids[start + i]));
            for (size_t i = 0; i < end; ++i) values[start + i] = gumbel(bits[i]);
        }
    });
}

template <class Logit>
void best_with_noise(const LogitRows<Logit>& logits, float temperature, NoiseOrigin noise, size_t k, InstructionSet instruction_set,
                     size_t num_threads, float* scores, int64_t* token_ids) {
    const size_t vocab_size = logits.vocab_size, num_tiles = (vocab_size + tile_size - 1) / tile_size;
    const size_t num_parts = num_parts_of_row(vocab_size, logits.num_rows, num_threads);
    const uint64_t* keys = token_keys(vocab_size, instruction_set);
    std::vector<float> maxima(logits.num_rows);
    std::vector<std::vector<uint64_t>> best_of_parts(logits.num_rows * num_parts);
    parallel_for(logits.num_rows * num_parts, num_threads, [&](size_t task) {
        const size_t row = task / num_parts, part = task % num_parts;
        const Logit* values = logits.data + row * logits.row_stride;
        BestKeys best(k);
        run_with(instruction_set, [&]() HOARFROST_INLINE_LAMBDA {
            const float maximum = largest_logit(values, vocab_size);  // each part for itself: cheaper than waiting for each other
            if (part == 0) maxima[row] = maximum;
            if (!std::isfinite(maximum)) return;
            const uint64_t stream = noise_stream(noise.seed, noise.position + row);
            for (size_t tile = num_tiles * part / num_parts; tile < num_tiles * (part + 1) / num_parts; ++tile) {
                const size_t start = tile * tile_size;
                offer_tile(values, start, std::min(vocab_size - start, tile_size), maximum, temperature, stream, keys, best);
            }
        });
        best_of_parts[task] = best.sorted();
    });
    std::fill_n(scores, logits.num_rows * k, -infinity);
    std::fill_n(token_ids, logits.num_rows * k, -1);
    for (size_t row = 0; row < logits.num_rows; ++row) {
        if (!std::isfinite(maxima[row])) continue;
        std::vector<uint64_t>& best = best_of_parts[row * num_parts];
        for (size_t part = 1; part < num_parts; ++part) {
            const std::vector<uint64_t>& more = best_of_parts[row * num_parts + part];
            best.insert(best.end(), more.begin(), more.end());
        }
        std::sort(best.begin(), best.end(), std::greater<>());
        size_t filled = row * k;
        for (size_t rank = 0; rank < std::min(k, best.size()); ++rank) {
            scores[filled] = score_of(best[rank]);
            token_ids[filled++] = static_cast<int64_t>(place_of(best[rank]));
        }
        const Logit* values = logits.data + row * logits.row_stride;
        for (size_t index = 0; filled < (row + 1) * k; ++index)
            if (std::isinf((to_float(values[index]) - maxima[row]) / temperature)) token_ids[filled++] = static_cast<int64_t>(index);
    }
}

template void best_with_noise(const LogitRows<float>&, float, NoiseOrigin, size_t, InstructionSet, size_t, float*, int64_t*);
template void best_with_noise(const LogitRows<BFloat16>&, float, NoiseOrigin, size_t, InstructionSet, size_t, float*, int64_t*);

}  // namespace hoarfrost
