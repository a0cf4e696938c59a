// Where the tokens of a batch go in the KV cache: cells in the order of the positions. Used by 0002-kv-order.patch.
//
// Attention sums over a sequence's cells in the order of their index. Upstream gives a token whatever cell is free
// next, so that a token may lie before those it follows once the cache has had other tenants: the sum then runs in
// another order, and the same sequence has other logits than when it was alone. Here every token goes behind the last
// cell of its sequences. When no such cell is free, the cells close ranks: what is used moves to the front, in its
// order, and all that is free lies behind it. (That moves at most the whole cache, some 5 GB/s, once in as many tokens
// as there are free cells.)
#pragma once

#include <cstdint>
#include <cstring>
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

inline void axion_move_rows(char * data, size_t row, const std::vector<uint32_t> & from,
                            const std::vector<uint32_t> & to) {
    for (size_t i = 0, n; i < from.size(); i += n) {
        for (n = 1; i + n < from.size() && from[i + n] == from[i] + n && to[i + n] == to[i] + n; n++) {
        }
        memmove(data + to[i] * row, data + from[i] * row, n * row);
    }
}

// Set by the caller of axion_cells_in_order when it had to take a cell out of order.
inline thread_local bool axion_out_of_order = false;

inline bool axion_take_out_of_order() {
    const bool was     = axion_out_of_order;
    axion_out_of_order = false;
    return was;
}

// Closes the gaps between a stream's cells, keeping their order, so that all free cells lie behind the others; false:
// nothing has changed. `is_stale(position, next)`: a sliding window has left that position behind, its cell is free.
template <class Cells, class Layers, class IsStale>
bool axion_close_ranks(Cells & cells, uint32_t stream, const Layers & layers, const IsStale & is_stale) {
    for (const auto & layer : layers) {
        for (const ggml_tensor * t : { layer.k, layer.v }) {
            if (t != nullptr && !ggml_backend_buffer_is_host(t->buffer)) {
                return false;
            }
        }
    }
    std::vector<uint32_t> from, to;
    bool                  changed = false;
    uint32_t              end     = 0;
    for (uint32_t i = 0; i < cells.size(); i++) {
        if (!cells.is_empty(i) && cells.seq_count(i) == 1 &&
            is_stale(cells.pos_get(i), cells.seq_pos_max(cells.seq_get(i)) + 1)) {
            cells.rm(i);
            changed = true;
        }
        if (cells.is_empty(i)) {
            continue;
        }
        if (i != end) {
            from.push_back(i);
            to.push_back(end);
        }
        end++;
    }
    if (from.empty()) {
        return changed;
    }
    const Cells moved = cells.cp(from);
    for (const uint32_t i : from) {
        cells.rm(i);
    }
    cells.set(to, moved);
    for (const auto & layer : layers) {
        for (const ggml_tensor * t : { layer.k, layer.v }) {
            if (t != nullptr) {
                axion_move_rows((char *) t->data + stream * t->nb[2], t->nb[1], from, to);
            }
        }
    }
    return true;
}
