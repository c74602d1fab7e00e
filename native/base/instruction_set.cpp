#include "base/instruction_set.hpp"

#include <atomic>
#include <stdexcept>

#if HOARFROST_ARM && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace hoarfrost {

namespace {

#if HOARFROST_X86
bool has_avx2_instructions() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }

bool has_avx512_instructions() {
    return has_avx2_instructions() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_vnni_instructions() { return has_avx512_instructions() && __builtin_cpu_supports("avx512vnni"); }
#endif

#if HOARFROST_ARM
bool has_dot_products() {
#if defined(__linux__)
    constexpr unsigned long dot_products = 1 << 20;  // HWCAP_ASIMDDP
    return (getauxval(AT_HWCAP) & dot_products) != 0;
#elif defined(__APPLE__)
    return true;  // every processor of a Mac with Arm has them
#else
    return false;
#endif
}
#endif

struct Described {
    InstructionSet instruction_set;
    const char* name;
    bool (*is_there)();
};

// In the order of the enumerators.
constexpr Described all_sets[] = {
    {InstructionSet::plain, "plain", [] { return true; }},
#if HOARFROST_ARM
    {InstructionSet::neon_dot, "neon_dot", has_dot_products},
#endif
#if HOARFROST_X86
    {InstructionSet::avx2, "avx2", has_avx2_instructions},
    {InstructionSet::avx2_vnni, "avx2_vnni", [] { return has_avx2_instructions() && __builtin_cpu_supports("avxvnni"); }},
    {InstructionSet::avx512, "avx512", has_avx512_instructions},
    {InstructionSet::avx512_vnni, "avx512_vnni", has_avx512_vnni_instructions},
    {InstructionSet::avx512_bf16, "avx512_bf16", [] { return has_avx512_vnni_instructions() && __builtin_cpu_supports("avx512bf16"); }},
#endif
};

std::vector<Described> detect() {
#if HOARFROST_X86
    __builtin_cpu_init();
#endif
    std::vector<Described> present;
    for (const Described& described : all_sets)
        if (described.is_there()) present.push_back(described);
    return present;
}

const std::vector<Described>& present_sets() {
    static const std::vector<Described> present = detect();
    return present;
}

std::atomic<InstructionSet>& in_use() {
    static std::atomic<InstructionSet> instruction_set = present_sets().back().instruction_set;
    return instruction_set;
}

}  // namespace

std::vector<std::string> instruction_set_names() {
    std::vector<std::string> names;
    for (const Described& described : present_sets()) names.push_back(described.name);
    return names;
}

InstructionSet best_instruction_set() { return in_use().load(std::memory_order_relaxed); }

std::string instruction_set_in_use() {
    const InstructionSet used = best_instruction_set();
    for (const Described& described : present_sets())
        if (described.instruction_set == used) return described.name;
    return "unknown";
}

InstructionSet instruction_set_named(const std::string& name) {
    std::string known;
    for (const Described& described : present_sets()) {
        if (name == described.name) return described.instruction_set;
        known += (known.empty() ? "" : ", ") + std::string(described.name);
    }
    throw std::invalid_argument("This processor has no instruction set '" + name + "'; it has " + known + ".");
}

void use_instruction_set(const std::optional<std::string>& name) {
    in_use().store(name ? instruction_set_named(*name) : present_sets().back().instruction_set, std::memory_order_relaxed);
}

}  // namespace hoarfrost
