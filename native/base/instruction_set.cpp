#include "base/instruction_set.hpp"

#include <stdexcept>

namespace hoarfrost {

namespace {

constexpr const char* all_names[] = {"plain", "avx2", "avx2_vnni", "avx512", "avx512_vnni"};

bool is_there(InstructionSet instruction_set) {
    if (instruction_set == InstructionSet::plain) return true;
#if HOARFROST_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl");
    switch (instruction_set) {
        case InstructionSet::avx2: return avx2;
        case InstructionSet::avx2_vnni: return avx2 && __builtin_cpu_supports("avxvnni");
        case InstructionSet::avx512: return avx512;
        default: return avx512 && __builtin_cpu_supports("avx512vnni");
    }
#endif
    return false;
}

std::vector<InstructionSet> find_all() {
    std::vector<InstructionSet> found;
    for (size_t index = 0; index < std::size(all_names); ++index)
        if (is_there(static_cast<InstructionSet>(index))) found.push_back(static_cast<InstructionSet>(index));
    return found;
}

const std::vector<InstructionSet>& all() {
    static const std::vector<InstructionSet> found = find_all();
    return found;
}

}  // namespace

InstructionSet best_instruction_set() { return all().back(); }

std::vector<std::string> instruction_set_names() {
    std::vector<std::string> names;
    for (const InstructionSet one : all()) names.emplace_back(all_names[static_cast<size_t>(one)]);
    return names;
}

InstructionSet instruction_set_named(const std::string& name) {
    for (const InstructionSet one : all())
        if (name == all_names[static_cast<size_t>(one)]) return one;
    throw std::invalid_argument("This processor has no instruction set '" + name + "'; instruction_sets() lists those it has.");
}

}  // namespace hoarfrost
