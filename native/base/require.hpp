// What a caller has to see to, said in the error where it did not.
#pragma once

#include <stdexcept>

namespace hoarfrost {

inline void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

}  // namespace hoarfrost
