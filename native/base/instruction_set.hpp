// One kernel body, compiled once per instruction set, chosen at run time.
//
// A body is written as plain loops in an always-inlined lambda. `run_with` inlines it into a function that carries a target attribute, so
// the compiler vectorises the same source for AVX-512, for AVX2 and for the baseline. Elsewhere than on x86 with GCC or Clang there is the
// baseline alone (NEON is part of it on aarch64). Contraction to fused multiply-add is off, so that every variant gives the same bits, but
// for the sources that CMakeLists.txt names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HOARFROST_X86 1
#define HOARFROST_AVX2 __attribute__((target("avx2,fma")))
#define HOARFROST_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")))
#define HOARFROST_AVX512_BF16 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")))
#else
#define HOARFROST_X86 0
#endif

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define HOARFROST_ARM 1
#else
#define HOARFROST_ARM 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define HOARFROST_INLINE inline __attribute__((always_inline))
#define HOARFROST_INLINE_LAMBDA __attribute__((always_inline))
#else
#define HOARFROST_INLINE inline
#define HOARFROST_INLINE_LAMBDA
#endif

namespace hoarfrost {

// From the plainest to the best; a further one joins here, in the table of instruction_set.cpp, and where kernels have use for it. The sets
// with VNNI multiply bytes in one instruction and are otherwise those that they are named after; `neon_dot` is to `plain` on Arm the same.
// `avx512_bf16` is `avx512_vnni` with products of bfloat16 numbers.
enum class InstructionSet { plain, neon_dot, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16 };

inline bool has_avx512(InstructionSet instruction_set) { return instruction_set >= InstructionSet::avx512; }
inline bool has_avx2(InstructionSet instruction_set) { return instruction_set >= InstructionSet::avx2; }

// What this processor can run, in that order; the names are those of the enumerators.
std::vector<std::string> instruction_set_names();

// The best that this processor can run, or what `use_instruction_set` named.
InstructionSet best_instruction_set();

// The name of that.
std::string instruction_set_in_use();

// The set of that name; throws std::invalid_argument where this processor lacks it. Tests use it to compare the variants.
InstructionSet instruction_set_named(const std::string& name);

// What kernels run from now on where no set is asked for; none: the best again. Matrices that are laid out already stay with theirs.
void use_instruction_set(const std::optional<std::string>& name);

#if HOARFROST_X86
template <class Body>
HOARFROST_AVX2 void run_with_avx2(const Body& body) {
    body();
}

template <class Body>
HOARFROST_AVX512 void run_with_avx512(const Body& body) {
    body();
}
#endif

template <class Body>
void run_with(InstructionSet instruction_set, const Body& body) {
#if HOARFROST_X86
    if (has_avx512(instruction_set)) return run_with_avx512(body);
    if (has_avx2(instruction_set)) return run_with_avx2(body);
#endif
    (void)instruction_set;
    body();
}

}  // namespace hoarfrost
