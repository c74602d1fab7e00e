// What the bindings share: arrays in, arrays out, and which instruction set a call asks for.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/instruction_set.hpp"
#include "base/require.hpp"
#include "logits/top_k.hpp"

namespace hoarfrost {

namespace nb = nanobind;
using namespace nb::literals;

template <class Scalar, size_t num_dimensions>
using Input = nb::ndarray<const Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

// The entries of a row side by side, other axes any distance apart.
template <class Stored>
using Strided = nb::ndarray<const Stored, nb::ndim<3>, nb::device::cpu>;

// An array that the caller made, to be written to.
template <class Scalar, size_t num_dimensions>
using InPlace = nb::ndarray<Scalar, nb::ndim<num_dimensions>, nb::c_contig, nb::device::cpu>;

template <class Scalar>
using Output = nb::ndarray<nb::numpy, Scalar>;

// A tensor that a face of the package has checked, in calls where handing over an array would cost as much as the call.
using Address = uintptr_t;

template <class Scalar>
Scalar* at(Address address) {
    return reinterpret_cast<Scalar*>(address);
}

template <class Array>
bool has_shape(const Array& array, std::initializer_list<size_t> shape) {
    size_t axis = 0;
    for (const size_t extent : shape)
        if (array.shape(axis++) != extent) return false;
    return true;
}

using OptionalName = std::optional<std::string>;

inline InstructionSet chosen(const OptionalName& name) { return name ? instruction_set_named(*name) : best_instruction_set(); }

// Fresh memory that becomes the numpy array that owns it; filled while the interpreter lock is released.
template <class Scalar>
struct Buffer {
    explicit Buffer(std::vector<size_t> shape) : shape(std::move(shape)) {
        size_t count = 1;
        for (const size_t extent : this->shape) count *= extent;
        data = std::make_unique_for_overwrite<Scalar[]>(count);
    }

    // An array of `shape`, whose entries lie side by side unless `strides` say otherwise.
    Output<Scalar> to_numpy(const std::vector<int64_t>& strides = {}) {
        Scalar* pointer = data.release();
        nb::capsule owner(pointer, [](void* memory) noexcept { delete[] static_cast<Scalar*>(memory); });
        return Output<Scalar>(pointer, shape.size(), shape.data(), owner, strides.empty() ? nullptr : strides.data());
    }

    std::vector<size_t> shape;
    std::unique_ptr<Scalar[]> data;
};

// Logits that a face has checked: where they are, how many rows, how far apart these begin, how many entries each has, and whether they
// are bfloat16 rather than float32.
using LogitSource = std::tuple<Address, size_t, size_t, size_t, bool>;

// Calls `use(rows)` with the logits as what they are.
template <class Use>
auto with_rows(const LogitSource& source, const Use& use) {
    const auto& [address, num_rows, row_stride, vocab_size, is_bfloat16] = source;
    require(vocab_size > 0, "The logits have no columns.");
    return is_bfloat16 ? use(LogitRows<BFloat16>{at<const BFloat16>(address), num_rows, row_stride, vocab_size})
                       : use(LogitRows<float>{at<const float>(address), num_rows, row_stride, vocab_size});
}

}  // namespace hoarfrost
