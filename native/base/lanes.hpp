// A few floats that are computed side by side: one register of the instruction set that the surrounding function is compiled for.
//
// GCC and Clang have vectors in the language; elsewhere a plain array does the same, as fast as the compiler makes it. `a * b + c` becomes
// one fused multiply-add where the source file allows that (CMakeLists.txt) and the processor has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bfloat16.hpp"

namespace hoarfrost {

#if defined(__GNUC__) || defined(__clang__)

template <size_t lanes>
struct Vectors;

template <>
struct Vectors<8> {
    typedef float Floats __attribute__((vector_size(32)));
    typedef uint32_t Words __attribute__((vector_size(32)));
    typedef uint16_t HalfWords __attribute__((vector_size(16)));
};

template <>
struct Vectors<16> {
    typedef float Floats __attribute__((vector_size(64)));
    typedef uint32_t Words __attribute__((vector_size(64)));
    typedef uint16_t HalfWords __attribute__((vector_size(32)));
};

template <size_t lanes>
struct Lanes {
    using Floats = typename Vectors<lanes>::Floats;
    using Words = typename Vectors<lanes>::Words;
    using HalfWords = typename Vectors<lanes>::HalfWords;
    static constexpr size_t width = lanes;
    Floats v;

    static HOARFROST_INLINE Lanes all(float value) { return {value - Floats{}}; }

    static HOARFROST_INLINE Lanes load(const float* from) {
        Lanes loaded;
        std::memcpy(&loaded.v, from, sizeof(Floats));
        return loaded;
    }

    static HOARFROST_INLINE Lanes load(const BFloat16* from) {
        HalfWords bits;
        std::memcpy(&bits, from, sizeof(HalfWords));
        return {(Floats)(__builtin_convertvector(bits, Words) << 16)};
    }

    static HOARFROST_INLINE void load_two(const float* from, Lanes& first, Lanes& second) {
        first = load(from);
        second = load(from + lanes);
    }

    // bfloat16 numbers that alternate between `first` and `second`: both for one load and two cheap operations.
    static HOARFROST_INLINE void load_two(const BFloat16* from, Lanes& first, Lanes& second) {
        Words bits;
        std::memcpy(&bits, from, sizeof(Words));
        first.v = (Floats)(bits << 16);
        second.v = (Floats)(bits & 0xFFFF0000u);
    }

    HOARFROST_INLINE void store(float* to) const { std::memcpy(to, &v, sizeof(Floats)); }

    // 2^n for lanes that hold whole numbers n in -126..127: n + 127 stands in the low bits of 2^23 + 127 + n.
    HOARFROST_INLINE Lanes power_of_two() const { return {(Floats)((Words)(v + 0x1.0000fep23f) << 23)}; }

    HOARFROST_INLINE Lanes max(Lanes other) const { return {v > other.v ? v : other.v}; }
    HOARFROST_INLINE Lanes min(Lanes other) const { return {v < other.v ? v : other.v}; }

    // These lanes, but 0 where `tested` lies below `limit` (NaN does not).
    HOARFROST_INLINE Lanes zero_where_below(Lanes tested, float limit) const { return {tested.v < all(limit).v ? Floats{} : v}; }

    friend HOARFROST_INLINE Lanes operator+(Lanes a, Lanes b) { return {a.v + b.v}; }
    friend HOARFROST_INLINE Lanes operator-(Lanes a, Lanes b) { return {a.v - b.v}; }
    friend HOARFROST_INLINE Lanes operator*(Lanes a, Lanes b) { return {a.v * b.v}; }
    friend HOARFROST_INLINE Lanes operator/(Lanes a, Lanes b) { return {a.v / b.v}; }
};

#else

template <size_t lanes>
struct Lanes {
    static constexpr size_t width = lanes;
    float v[lanes];

    template <class Value>
    static Lanes each(const Value& value) {
        Lanes result;
        for (size_t i = 0; i < lanes; ++i) result.v[i] = value(i);
        return result;
    }

    static Lanes all(float value) {
        return each([=](size_t) { return value; });
    }
    template <class Stored>
    static Lanes load(const Stored* from) {
        return each([=](size_t i) { return to_float(from[i]); });
    }
    static void load_two(const float* from, Lanes& first, Lanes& second) {
        first = load(from);
        second = load(from + lanes);
    }
    static void load_two(const BFloat16* from, Lanes& first, Lanes& second) {
        first = each([=](size_t i) { return to_float(from[2 * i]); });
        second = each([=](size_t i) { return to_float(from[2 * i + 1]); });
    }
    void store(float* to) const { std::memcpy(to, v, sizeof(v)); }
    Lanes power_of_two() const {
        return each([this](size_t i) { return std::bit_cast<float>((static_cast<int32_t>(v[i]) + 127) << 23); });
    }
    Lanes max(Lanes other) const {
        return each([&](size_t i) { return v[i] > other.v[i] ? v[i] : other.v[i]; });
    }
    Lanes min(Lanes other) const {
        return each([&](size_t i) { return v[i] < other.v[i] ? v[i] : other.v[i]; });
    }
    Lanes zero_where_below(Lanes tested, float limit) const {
        return each([&](size_t i) { return tested.v[i] < limit ? 0.0f : v[i]; });
    }
    friend Lanes operator+(Lanes a, Lanes b) {
        return each([&](size_t i) { return a.v[i] + b.v[i]; });
    }
    friend Lanes operator-(Lanes a, Lanes b) {
        return each([&](size_t i) { return a.v[i] - b.v[i]; });
    }
    friend Lanes operator*(Lanes a, Lanes b) {
        return each([&](size_t i) { return a.v[i] * b.v[i]; });
    }
    friend Lanes operator/(Lanes a, Lanes b) {
        return each([&](size_t i) { return a.v[i] / b.v[i]; });
    }
};

#endif

// Whole numbers near the lanes: adding 1.5 * 2^23 leaves no room for a fraction.
template <size_t lanes>
HOARFROST_INLINE Lanes<lanes> round_to_whole(Lanes<lanes> x) {
    const auto shift = Lanes<lanes>::all(0x1.8p23f);
    return (x + shift) - shift;
}

// e^x to about 1e-7 of its value; 0 below the smallest normal number, e^88 above it. Polynomial of Cephes' expf, argument reduced in two
// steps. exp(0) is 1 and NaN stays NaN.
template <size_t lanes>
HOARFROST_INLINE Lanes<lanes> exp_of(Lanes<lanes> x) {
    using L = Lanes<lanes>;
    constexpr float lowest = -87.33654f;
    const L bounded = L::all(88.0f).min(L::all(lowest).max(x));
    const L n = round_to_whole(bounded * L::all(1.44269504f));
    const L r = bounded - n * L::all(0.693359375f) - n * L::all(-2.12194440e-4f);
    L p = L::all(1.9875691500e-4f);
    p = p * r + L::all(1.3981999507e-3f);
    p = p * r + L::all(8.3334519073e-3f);
    p = p * r + L::all(4.1665795894e-2f);
    p = p * r + L::all(1.6666665459e-1f);
    p = p * r + L::all(5.0000001201e-1f);
    p = p * (r * r) + r + L::all(1.0f);
    return (p * n.power_of_two()).zero_where_below(x, lowest);
}

// The sum of all lanes, always in the same order.
template <size_t lanes>
HOARFROST_INLINE float sum_of(Lanes<lanes> x) {
    float values[lanes];
    x.store(values);
    for (size_t half = lanes / 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; ++i) values[i] += values[i + half];
    return values[0];
}

}  // namespace hoarfrost
