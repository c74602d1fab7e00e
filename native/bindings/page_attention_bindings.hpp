#pragma once

#include <nanobind/nanobind.h>

namespace hoarfrost {

void bind_page_attention(nanobind::module_& module);

}  // namespace hoarfrost
