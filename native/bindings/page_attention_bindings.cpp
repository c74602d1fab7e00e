// Python bindings of attention over pages. Shapes that must agree are checked here; slots and row counts are checked too, since a wrong one
// would read astray.
#include "bindings/page_attention_bindings.hpp"

#include <type_traits>

#include "bindings/bindings.hpp"
#include "pages/page_attention.hpp"

namespace hoarfrost {

namespace {

void check_pages(const Input<int64_t, 3>& slots, const Input<int32_t, 3>& page_rows, const std::optional<Input<int32_t, 3>>& first_rows,
                 size_t num_slots, size_t page_size) {
    for (size_t axis = 0; axis < 3; ++axis)
        require(slots.shape(axis) == page_rows.shape(axis) && (!first_rows || first_rows->shape(axis) == slots.shape(axis)),
                "slots, page_rows and first_rows must be of one shape.");
    for (size_t i = 0; i < slots.size(); ++i) {
        const int32_t rows = page_rows.data()[i], first = first_rows ? first_rows->data()[i] : 0;
        if (rows <= 0) continue;
        require(first >= 0 && static_cast<size_t>(first) + static_cast<size_t>(rows) <= page_size, "A page has more rows than fit.");
        require(static_cast<uint64_t>(slots.data()[i]) < num_slots, "A page lies outside the pool.");
    }
}

template <class Stored>
bool has_contiguous_rows(const Strided<Stored>& rows, size_t head_dim) {
    return rows.shape(2) == head_dim && (rows.stride(2) == 1 || head_dim == 1);
}

template <class Stored>
bool has_dense_rows(const Strided<Stored>& rows, size_t head_dim) {
    return has_contiguous_rows(rows, head_dim) && (rows.shape(1) <= 1 || static_cast<size_t>(rows.stride(1)) == head_dim);
}

template <class Scalar, class Stored>
void attend_pages_face(const Strided<Stored>& queries, const Strided<Stored>& local_keys, const Strided<Stored>& local_values,
                       const Input<Stored, 4>& pool, const Input<int64_t, 3>& slots, const Input<int32_t, 3>& page_rows,
                       const std::optional<Input<int32_t, 3>>& first_rows, const std::optional<Input<bool, 2>>& visible, size_t first_hidden, const std::optional<Input<int32_t, 1>>& num_hidden,
                       const std::optional<Input<float, 3>>& mean_keys, const std::optional<Input<float, 3>>& mean_values,
                       const std::optional<Input<float, 3>>& log_counts, float scale, InPlace<Stored, 3> out, size_t num_threads,
                       const OptionalName& instruction_set) {
    const size_t num_heads = queries.shape(0), num_rows = queries.shape(1), head_dim = queries.shape(2);
    const size_t num_kv_heads = local_keys.shape(0), num_local = local_keys.shape(1), num_lists = slots.shape(1);
    require(num_kv_heads > 0 && num_heads % num_kv_heads == 0, "The query heads must be a multiple of the KV heads.");
    require(num_rows > 0 && num_local >= num_rows, "The local rows must end with those of the queries.");
    require(has_contiguous_rows(queries, head_dim) && has_dense_rows(local_keys, head_dim) && has_dense_rows(local_values, head_dim),
            "Queries, keys and values must be of one head size, the entries of a row side by side, the rows of a head one after the other.");
    require(local_values.shape(0) == num_kv_heads && local_values.shape(1) == num_local, "Keys and values must be of one shape.");
    require(pool.shape(1) == 2 && pool.shape(3) == head_dim, "The pool must be [slots, 2, page size, head size].");
    require(slots.shape(0) == num_kv_heads && (num_lists == 1 || num_lists == num_rows), "There must be one list of pages, or one per row.");
    require(out.shape(0) == num_rows && out.shape(1) == num_heads && out.shape(2) == head_dim, "The result must be [rows, heads, head size].");
    require(!visible || (visible->shape(0) == num_rows && visible->shape(1) == num_rows), "The visibility must be [rows, rows].");
    require(!num_hidden || num_hidden->shape(0) == num_rows, "There must be one number of hidden rows per row.");
    check_pages(slots, page_rows, first_rows, pool.shape(0), pool.shape(2));
    size_t num_summaries = 0;
    if (log_counts) {
        num_summaries = log_counts->shape(2);
        require(mean_keys && mean_values && log_counts->shape(0) == num_kv_heads && log_counts->shape(1) == num_lists,
                "Summaries need mean keys, mean values, and one list of counts per list of pages.");
        for (const auto* means : {&*mean_keys, &*mean_values})
            require(means->shape(0) == num_kv_heads && means->shape(1) == num_summaries && means->shape(2) == head_dim,
                    "Summaries must be [KV heads, pages, head size].");
    }
    const auto scalars = [](const auto& array) { return reinterpret_cast<const Scalar*>(array.data()); };
    const PageAttention<Scalar> problem{
        .num_heads = num_heads,
        .num_kv_heads = num_kv_heads,
        .num_rows = num_rows,
        .head_dim = head_dim,
        .scale = scale,
        .queries = scalars(queries),
        .query_head_stride = static_cast<size_t>(queries.stride(0)),
        .query_row_stride = static_cast<size_t>(queries.stride(1)),
        .local_keys = scalars(local_keys),
        .local_values = scalars(local_values),
        .num_local = num_local,
        .key_head_stride = static_cast<size_t>(local_keys.stride(0)),
        .value_head_stride = static_cast<size_t>(local_values.stride(0)),
        .visible = visible ? visible->data() : nullptr,
        .first_hidden = first_hidden,
        .num_hidden = num_hidden ? num_hidden->data() : nullptr,
        .pool = scalars(pool),
        .page_size = pool.shape(2),
        .num_lists = num_lists,
        .list_length = slots.shape(2),
        .slots = slots.data(),
        .page_rows = page_rows.data(),
        .first_rows = first_rows ? first_rows->data() : nullptr,
        .num_summaries = num_summaries,
        .mean_keys = log_counts ? mean_keys->data() : nullptr,
        .mean_values = log_counts ? mean_values->data() : nullptr,
        .log_counts = log_counts ? log_counts->data() : nullptr,
        .out = reinterpret_cast<Scalar*>(out.data()),
    };
    const InstructionSet variant = chosen(instruction_set);
    nb::gil_scoped_release unlocked;
    attend_pages(problem, num_threads, variant);
}

template <class Scalar, class Stored>
void bind(nb::module_& module, const char* name) {
    module.def(name, &attend_pages_face<Scalar, Stored>, "queries"_a.noconvert(), "local_keys"_a.noconvert(), "local_values"_a.noconvert(),
               "pool"_a.noconvert(), "slots"_a.noconvert(), "page_rows"_a.noconvert(), "first_rows"_a.none(), "visible"_a.none(), "first_hidden"_a,
               "num_hidden"_a.none(), "mean_keys"_a.none(), "mean_values"_a.none(), "log_counts"_a.none(), "scale"_a, "out"_a.noconvert(), "num_threads"_a,
               "instruction_set"_a = nb::none(), "Attention over local rows, pages of a pool and summaries of others, in one softmax.");
}

}  // namespace

void bind_page_attention(nb::module_& module) {
    bind<float, float>(module, "attend_pages");
    bind<BFloat16, uint16_t>(module, "attend_pages_bfloat16");
}

}  // namespace hoarfrost
