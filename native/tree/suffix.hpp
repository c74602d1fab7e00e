// A suffix automaton (Blumer et al. 1985) that grows token by token and knows where its whole text's longest repeated suffix occurred before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace hoarfrost {

struct SuffixMatch {
    size_t length;  // tokens of the longest suffix of the text that occurs earlier in it
    size_t end;     // where that earlier occurrence ends: the place behind its last token
};

class SuffixIndex {
public:
    SuffixIndex();

    // Appends tokens; constant time each, amortised.
    void extend(const int64_t* token_ids, size_t count);

    SuffixMatch longest_match() const { return match_; }

    size_t size() const { return size_; }

private:
    struct State {
        size_t length;
        int64_t link;
        size_t latest_end;  // behind a late occurrence of the state's strings; the latest one, as far as the walk in `append` reaches
    };

    void append(int64_t token_id);
    int64_t next(int64_t state, int64_t token_id) const;
    void set_next(int64_t state, int64_t token_id, int64_t target) { transitions_[key(state, token_id)] = target; }
    static uint64_t key(int64_t state, int64_t token_id) { return static_cast<uint64_t>(state) << 32 | static_cast<uint32_t>(token_id); }
    int64_t clone(int64_t state, int64_t parent, int64_t token_id);

    std::vector<State> states_;
    std::vector<std::vector<int64_t>> labels_;  // the tokens that leave each state, for cloning
    std::unordered_map<uint64_t, int64_t> transitions_;
    int64_t last_ = 0;
    size_t size_ = 0;
    SuffixMatch match_{0, 0};
};

}  // namespace hoarfrost
