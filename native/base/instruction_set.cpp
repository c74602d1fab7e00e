#include "base/instruction_set.hpp"

#include <stdexcept>

namespace hoarfrost {

namespace {

constexpr const char* all_names[] = {"plain", "avx2", "avx512"};

InstructionSet detect() {
#if HOARFROST_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return InstructionSet::plain;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return InstructionSet::avx512;
    return InstructionSet::avx2;
#endif
    return InstructionSet::plain;
}

}  // namespace

InstructionSet best_instruction_set() {
    static const InstructionSet best = detect();
    return best;
}

std::vector<std::string> instruction_set_names() {
    return {all_names, all_names + static_cast<int>(best_instruction_set()) + 1};
}

InstructionSet instruction_set_named(const std::string& name) {
    for (int index = 0; index <= static_cast<int>(best_instruction_set()); ++index)
        if (name == all_names[index]) return static_cast<InstructionSet>(index);
    throw std::invalid_argument("This processor has no instruction set '" + name + "'; instruction_sets() lists those it has.");
}

}  // namespace hoarfrost
