#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

// After `bind_decoder`, whose matrices these take.
void bind_drafter(nanobind::module_& module);

}  // namespace hoarfrost
