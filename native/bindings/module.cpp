// Python bindings. The faces in src/hoarfrost/kernels check what users can get wrong; here is checked what would make a kernel read astray.
#include "bindings/bindings.hpp"
#include "bindings/dci_bindings.hpp"
#include "bindings/decoder_bindings.hpp"
#include "bindings/drafter_bindings.hpp"
#include "bindings/index_bindings.hpp"
#include "bindings/learning_bindings.hpp"
#include "logits/noise.hpp"
#include "bindings/page_attention_bindings.hpp"
#include "bindings/retrieval_bindings.hpp"
#include "logits/top_k.hpp"
#include "bindings/tree_bindings.hpp"
#include "bindings/walk_bindings.hpp"

namespace hoarfrost {

namespace {

Output<uint64_t> noise_bits_face(uint64_t seed, uint64_t position, const Input<int64_t, 1>& token_ids,
                                 const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    Buffer<uint64_t> bits({token_ids.size()});
    {
        nb::gil_scoped_release unlocked;
        noise_bits(noise_stream(seed, position), token_ids.data(), token_ids.size(), variant, bits.data.get());
    }
    return bits.to_numpy();
}

Output<float> gumbel_face(uint64_t seed, uint64_t position, const int64_t* token_ids, size_t count, const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    Buffer<float> values({count});
    {
        nb::gil_scoped_release unlocked;
        gumbel_noise(noise_stream(seed, position), token_ids, count, variant, values.data.get());
    }
    return values.to_numpy();
}

Output<float> gumbel_rows_face(uint64_t seed, uint64_t first_position, const Input<int64_t, 2>& token_ids,
                               const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    const size_t num_rows = token_ids.shape(0), count = token_ids.shape(1);
    Buffer<float> values({num_rows, count});
    {
        nb::gil_scoped_release unlocked;
        for (size_t row = 0; row < num_rows; ++row)
            gumbel_noise(noise_stream(seed, first_position + row), token_ids.data() + row * count, count, variant, values.data.get() + row * count);
    }
    return values.to_numpy();
}

void check_k(size_t k, size_t vocab_size) {
    if (k < 1 || k > vocab_size)
        throw std::invalid_argument("k is " + std::to_string(k) + "; it must lie in 1.." + std::to_string(vocab_size) + ".");
}

// The best entries of every row: their scores and token ids, best first.
using Ranked = std::pair<Output<float>, Output<int64_t>>;

Ranked top_face(const LogitSource& logits, size_t k, size_t num_threads, const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    return with_rows(logits, [&](const auto& rows) {
        check_k(k, rows.vocab_size);
        Buffer<float> log_probs({rows.num_rows, k});
        Buffer<int64_t> token_ids({rows.num_rows, k});
        {
            nb::gil_scoped_release unlocked;
            top_log_probs(rows, k, variant, num_threads, log_probs.data.get(), token_ids.data.get());
        }
        return Ranked(log_probs.to_numpy(), token_ids.to_numpy());
    });
}

Output<int64_t> best_tokens_face(const LogitSource& logits, size_t num_threads, const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    return with_rows(logits, [&](const auto& rows) {
        Buffer<int64_t> token_ids({rows.num_rows});
        {
            nb::gil_scoped_release unlocked;
            best_tokens(rows, variant, num_threads, token_ids.data.get());
        }
        return token_ids.to_numpy();
    });
}

Ranked best_with_noise_face(const LogitSource& logits, float temperature, uint64_t seed, uint64_t first_position, size_t k,
                               size_t num_threads, const OptionalName& instruction_set) {
    const InstructionSet variant = chosen(instruction_set);
    return with_rows(logits, [&](const auto& rows) {
        check_k(k, rows.vocab_size);
        Buffer<float> scores({rows.num_rows, k});
        Buffer<int64_t> token_ids({rows.num_rows, k});
        {
            nb::gil_scoped_release unlocked;
            best_with_noise(rows, temperature, {seed, first_position}, k, variant, num_threads, scores.data.get(), token_ids.data.get());
        }
        return Ranked(scores.to_numpy(), token_ids.to_numpy());
    });
}

}  // namespace

}  // namespace hoarfrost

NB_MODULE(_native, module) {
    using namespace hoarfrost;
    module.doc() = "The C++ kernels; hoarfrost.kernels wraps them with checks. An int that stands for an array is its address.";
    module.def("instruction_sets", &instruction_set_names, "What this processor can run, from the plainest to the best.");
    module.def("instruction_set_in_use", &instruction_set_in_use, "What kernels run where no set is asked for.");
    module.def("use_instruction_set", &use_instruction_set, "name"_a.none(),
               "What kernels run from now on where no set is asked for; None: the best again. Matrices that are laid out already stay with theirs.");
    module.def("noise_bits", &noise_bits_face, "seed"_a, "position"_a, "token_ids"_a.noconvert(), "instruction_set"_a = nb::none(),
               "The random bits of tokens at a position.");
    module.def(
        "gumbel_noise",
        [](uint64_t seed, uint64_t position, const Input<int64_t, 1>& token_ids, const OptionalName& instruction_set) {
            return gumbel_face(seed, position, token_ids.data(), token_ids.size(), instruction_set);
        },
        "seed"_a, "position"_a, "token_ids"_a.noconvert(), "instruction_set"_a = nb::none(), "Gumbel noise of tokens at a position.");
    module.def(
        "gumbel_noise_range",
        [](uint64_t seed, uint64_t position, size_t vocab_size, const OptionalName& instruction_set) {
            return gumbel_face(seed, position, nullptr, vocab_size, instruction_set);
        },
        "seed"_a, "position"_a, "vocab_size"_a, "instruction_set"_a = nb::none(), "Gumbel noise of the whole vocabulary at a position.");
    module.def("gumbel_noise_rows", &gumbel_rows_face, "seed"_a, "first_position"_a, "token_ids"_a.noconvert(),
               "instruction_set"_a = nb::none(), "Gumbel noise of rows of tokens, one position each.");
    module.def("best_with_noise", &best_with_noise_face, "logits"_a, "temperature"_a, "seed"_a, "first_position"_a, "k"_a, "num_threads"_a,
               "instruction_set"_a = nb::none(), "Scores and ids of the k best tokens of every row, with the noise of its position.");
    module.def("top_log_probs", &top_face, "logits"_a, "k"_a, "num_threads"_a, "instruction_set"_a = nb::none(),
               "Log-probabilities and ids of the k best tokens of every row.");
    module.def("best_tokens", &best_tokens_face, "logits"_a, "num_threads"_a, "instruction_set"_a = nb::none(), "The best token of every row.");
    bind_trees(module);
    bind_walks(module);
    bind_learning(module);
    bind_retrieval(module);
    bind_page_attention(module);
    bind_decoder(module);
    bind_drafter(module);
    bind_index(module);
    bind_dci(module);
}
