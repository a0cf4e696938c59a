// Where the tokens of a batch go in the KV cache: cells in the order of the positions. Used by 0002-kv-order.patch.
//
// Attention sums over a sequence's cells in the order of their index. Upstream gives a token whatever cell is free
// next, so that a token may lie before those it follows once the cache has had other tenants: the sum then runs in
// another order, and the same sequence has other logits than when it was alone. Here every token goes behind the last
// cell of its sequences. Only when no such cell is free (a cache nearly full) does the caller take upstream's choice.
#pragma once

#include <cstdint>
#include <vector>

// Cells for tokens [first, first + num_tokens) of the batch into `found`; false, with `found` empty: there are none.
// `start` is where to look first.
template <class Cells, class Batch>
bool axion_cells_in_order(const Cells & cells, const Batch & batch, uint32_t first, uint32_t num_tokens, uint32_t start,
                          std::vector<uint32_t> & found) {
    struct Last {
        int32_t  seq_id;
        uint32_t next;  // behind the last cell of the sequence
    };
    std::vector<Last> lasts;
    const auto        last_of = [&](int32_t seq_id) -> Last & {
        for (Last & last : lasts) {
            if (last.seq_id == seq_id) {
                return last;
            }
        }
        const auto & held = cells.seq_pos_get(seq_id);
        lasts.push_back({ seq_id, held.empty() ? 0 : held.rbegin()->second + 1 });
        return lasts.back();
    };
    std::vector<bool> taken(cells.size());
    const auto        free_cell = [&](uint32_t from) {
        while (from < cells.size() && (taken[from] || !cells.is_empty(from))) {
            from++;
        }
        return from;
    };
    for (uint32_t i = first; i < first + num_tokens; i++) {
        uint32_t lowest = 0;
        for (int32_t s = 0; s < batch.n_seq_id[i]; s++) {
            const uint32_t next = last_of(batch.seq_id[i][s]).next;
            lowest              = next > lowest ? next : lowest;
        }
        uint32_t cell = free_cell(lowest > start ? lowest : start);
        if (cell == cells.size()) {
            cell = free_cell(lowest);
        }
        if (cell == cells.size()) {
            found.clear();
            return false;
        }
        for (int32_t s = 0; s < batch.n_seq_id[i]; s++) {
            last_of(batch.seq_id[i][s]).next = cell + 1;
        }
        taken[cell] = true;
        found.push_back(cell);
    }
    return true;
}
