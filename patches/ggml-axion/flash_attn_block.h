// One block of one tile: scores, softmax weights and the product with V over at most 256 ranks of every row, giving
// per row a partial result (maximum, sum, values).
//
// The batched and the single-row case are this same code, and each row only ever meets its own ranks: the tile it is in
// decides which rows share packed operands, nothing else.
#pragma once

#include "flash_attn_mask.h"
#include "flash_attn_softmax.h"
#include "flash_attn_tile.h"

#include <type_traits>

namespace axion {
namespace fa {

// A thread's buffers. Rows are those of a tile for one KV head: row t * group + h.
struct Scratch {
    int32_t *     cells;
    int32_t *     next_cells;  // of the block after
    const char ** k_rows;
    const char ** v_rows;
    uint8_t *     k8;
    float *       k_scales;
    uint8_t *     v8;
    float *       v_scales;
    float *       k32;
    float *       v32;
    int8_t *      q8;
    float *       q_scales;
    int32_t *     q_starts;
    float *       q32;
    float *       scores;    // [most_rows][span]
    uint8_t *     weights;   // [most_rows][dv/32][2 bytes][span]
    float *       v_scaled;  // [dv/32][span] V's scales as the current row's weights want them
    float *       units;     // [dv/32][most_rows] what one unit of the integer product is worth
    float *       partials;  // [rows]
    float *       states;    // [rows]
};

inline size_t row_bytes(KvType type, int d) {
    return type == KvType::f16 ? (size_t) d * 2 : (size_t) d / quant_size * quant_bytes;
}

// Lays the buffers out from `at` (null to measure); returns the bytes used.
inline size_t lay_out(Scratch & s, const Problem & p, int rows, char * at) {
    size_t     used = 0;
    const auto take = [&](auto *& field, size_t n) {
        field = (std::remove_reference_t<decltype(field)>) (at + used);
        used += (n * sizeof(*field) + 63) / 64 * 64;
    };
    const size_t kq = p.k_type == KvType::q8_0, vq = p.v_type == KvType::q8_0, kb = p.dk / quant_size,
                 vb = p.dv / quant_size;
    take(s.cells, span_size);
    take(s.next_cells, span_size);
    take(s.k_rows, span_size);
    take(s.v_rows, span_size);
    take(s.k8, kq * p.dk * span_size * machine::packed_bytes);
    take(s.k_scales, kq * kb * span_size);
    take(s.v8, vq * p.dv * span_size * machine::packed_bytes);
    take(s.v_scales, vq * vb * span_size);
    take(s.k32, (1 - kq) * p.dk * span_size);
    take(s.v32, (1 - vq) * p.dv * span_size);
    take(s.q8, kq * p.dk * rows);
    take(s.q_scales, kq * kb * rows);
    take(s.q_starts, kq * kb * rows);
    take(s.q32, (1 - kq) * p.dk * rows);
    take(s.scores, (size_t) most_rows * span_size);
    take(s.weights, vq * most_rows * vb * 2 * span_size);
    take(s.v_scaled, vq * vb * span_size);
    take(s.units, vq * vb * most_rows);
    take(s.partials, rows * partial_size(p.dv));
    take(s.states, rows * partial_size(p.dv));
    return used;
}

inline void prepare_queries(const Problem & p, const Tile & tile, int kv_head, const Scratch & s) {
    const float scale = p.softcap != 0 ? p.scale / p.softcap : p.scale * log2_e;
    for (int i = 0; i < tile.num_rows * p.group(); i++) {
        const int     row = tile.first + i / p.group(), head = kv_head * p.group() + i % p.group();
        const float * q = (const float *) p.q.at(row % p.num_rows, head, row / p.num_rows);
        if (p.k_type == KvType::q8_0) {
            const size_t kb = p.dk / quant_size;
            quantise_query(q, p.dk, scale, machine::k_bias, s.q8 + (size_t) i * p.dk, s.q_scales + i * kb,
                           s.q_starts + i * kb);
        } else {
            for (int d = 0; d < p.dk; d++) {
                s.q32[(size_t) i * p.dk + d] = q[d] * scale;
            }
        }
    }
}

// Points at a head's rows, and asks for those of the next block: sequences in one cache lie scattered, so the hardware
// cannot know them.
inline void locate(const View & view, size_t row_bytes, int kv_head, int stream, int n, int num_next, const Scratch & s,
                   const char ** rows) {
    for (int i = 0; i < n; i++) {
        rows[i] = view.at(s.cells[i], kv_head, stream);
    }
    for (int i = 0; i < num_next; i++) {
        const char * row = view.at(s.next_cells[i], kv_head, stream);
        for (size_t line = 0; line < row_bytes; line += 64) {
            __builtin_prefetch(row + line, 0, 1);
        }
    }
}

// The most rows of a group.
inline int rows_at_once([[maybe_unused]] const Problem & p) {
#if defined(AXION_AMX)
    return machine::are_open && p.k_type == KvType::q8_0 && p.v_type == KvType::q8_0 ? most_rows : group_rows;
#else
    return group_rows;
#endif
}

// What block_rows needs to know of a span.
struct Span {
    int  n;           // positions
    bool is_packed;   // F16 only: else K and V are widened on the way
    bool is_v_clean;  // F16 only: a position that a row does not see cannot harm it, times a weight of zero
};

// An F16 span that few rows go through is not worth being written down in FP32.
inline Span pack(const Problem & p, const Tile & tile, int kv_head, int n, int num_next, const Scratch & s) {
    const int stream = tile.first / p.num_rows;
    Span      span   = { n, tile.num_rows > 1 || p.group() > 2 * group_rows, true };
    locate(p.k, row_bytes(p.k_type, p.dk), kv_head, stream, n, num_next, s, s.k_rows);
    if (p.k_type == KvType::q8_0) {
        machine::pack_k_q8(s.k_rows, n, p.dk, s.k8, s.k_scales);
    } else if (span.is_packed) {
        pack_k_f16(s.k_rows, n, p.dk, 0, n, s.k32);
    }
    locate(p.v, row_bytes(p.v_type, p.dv), kv_head, stream, n, num_next, s, s.v_rows);
    if (p.v_type == KvType::q8_0) {
        machine::pack_v_q8(s.v_rows, n, p.dv, s.v8, s.v_scales);
    } else if (span.is_packed) {
        span.is_v_clean = pack_v_f16(s.v_rows, n, p.dv, s.v32);
    }
    return span;
}

// A group's rows, at most rows_at_once, and the ranks they have in this block: positions [shift, shift + count) of the
// span. Their union is within the 16-groups [begin, end).
struct Group {
    int first, n, begin, end;
    int shift[most_rows], count[most_rows];

    Group(const Problem & p, const RowTable & table, const Tile & tile, int block, int first_, int n_)
        : first(first_), n(n_) {
        int from = span_size, to = 0;
        for (int r = 0; r < n; r++) {
            const int t    = (first + r) / p.group();
            const int left = table.info[tile.first + t].count - block * block_size;
            shift[r]       = tile.shift[t];
            count[r]       = left < 0 ? 0 : left < block_size ? left : block_size;
            if (count[r] > 0) {
                from = shift[r] < from ? shift[r] : from;
                to   = shift[r] + count[r] > to ? shift[r] + count[r] : to;
            }
        }
        begin = from / 16;
        end   = (to + 15) / 16;
    }

    bool is_empty() const {
        return end == 0;
    }

    bool is_like_the_one_before(int r) const {
        return r > 0 && shift[r] == shift[r - 1] && count[r] == count[r - 1];
    }
};

inline void compute_scores(const Problem & p, const Group & g, const Span & span, const Scratch & s) {
    if (p.k_type == KvType::q8_0) {
        const size_t  kb = p.dk / quant_size;
        const QueryQ8 q  = { s.q8 + (size_t) g.first * p.dk, s.q_scales + g.first * kb, s.q_starts + g.first * kb,
                             p.dk };
        machine::scores_q8(q, g.n, s.k8, s.k_scales, g.begin, g.end, s.scores);
        return;
    }
    const float * q    = s.q32 + (size_t) g.first * p.dk;
    const int     step = span.is_packed ? g.end - g.begin : tile_groups;
    for (int from = g.begin; from < g.end; from += step) {
        const int to = from + step < g.end ? from + step : g.end;
        if (!span.is_packed) {
            pack_k_f16(s.k_rows + from * 16, span.n - from * 16, p.dk, 0, (to - from) * 16, s.k32);
        }
        const size_t at = span.is_packed ? (size_t) from * 16 * p.dk : 0;
        scores_f16(q, p.dk, g.n, s.k32 + at, 0, to - from, s.scores + from * 16);
    }
}

// Scores become weights, and are zero where a row has no ranks.
inline void compute_weights(const Problem & p, const RowTable & table, const Tile & tile, int kv_head, const Group & g,
                            const Scratch & s) {
    for (int r = 0; r < g.n; r++) {
        const int        i = g.first + r, row = tile.first + i / p.group(), head = kv_head * p.group() + i % p.group();
        float *          partial = s.partials + i * partial_size(p.dv);
        float *          all     = s.scores + r * span_size;
        float *          x       = all + g.shift[r];
        const uint16_t * mask    = table.info[row].biased ? p.mask_row(row % p.num_rows, row / p.num_rows) : nullptr;
        if (g.count[r] == 0) {
            memset(all + g.begin * 16, 0, (g.end - g.begin) * 16 * sizeof(float));
            continue;
        }
        if (mask != nullptr || p.softcap != 0) {
            adjust_scores(p, x, g.count[r], mask, s.cells + g.shift[r], p.slope(head));
        }
        partial[0]     = maximum(x, g.count[r]);
        partial[1]     = exponentiate(x, g.count[r], partial[0]);
        const int past = g.shift[r] + g.count[r];
        memset(all + g.begin * 16, 0, (g.shift[r] - g.begin * 16) * sizeof(float));
        memset(all + past, 0, (g.end * 16 - past) * sizeof(float));
    }
}

inline void multiply_q8(const Problem & p, const Group & g, const Scratch & s, float * const * out) {
    const Weights weights = { s.weights, p.dv / quant_size };
    for (int b = 0; b < weights.num_scales; b++) {
        float * scaled = s.v_scaled + b * span_size;
        float   unit   = 0;
        for (int r = 0; r < g.n; r++) {
            if (!g.is_like_the_one_before(r)) {
                unit = scale_weights(s.v_scales + b * span_size, g.shift[r], g.count[r], g.begin * 16, g.end * 16,
                                     machine::weight_max, scaled);
            }
            machine::write_weights(s.scores + r * span_size, scaled, weights, r, b, g.begin, g.end);
            s.units[b * most_rows + r] = unit;
        }
    }
    machine::values_q8(weights, g.n, s.v8, p.dv, g.begin, g.end, s.units, out);
}

inline void multiply_f16(const Problem & p, const Group & g, const Span & span, const Scratch & s,
                         float * const * out) {
    if (!span.is_packed) {  // one query row: all heads have the same ranks
        values_f16(s.scores, g.n, Halves{ s.v_rows }, p.dv, g.shift[0], g.shift[0] + g.count[0], out);
        return;
    }
    const Widened v = { s.v32, p.dv };
    if (span.is_v_clean) {
        values_f16(s.scores, g.n, v, p.dv, g.begin * 16, g.end * 16 < span.n ? g.end * 16 : span.n, out);
        return;
    }
    for (int r = 0; r < g.n; r++) {
        values_f16(s.scores + r * span_size, 1, v, p.dv, g.shift[r], g.shift[r] + g.count[r], out + r);
    }
}

inline void block_rows(const Problem & p, const RowTable & table, const Tile & tile, int kv_head, const Group & g,
                       const Span & span, const Scratch & s) {
    float * out[most_rows];
    for (int r = 0; r < g.n; r++) {
        float * partial = s.partials + (g.first + r) * partial_size(p.dv);
        partial[2]      = (float) g.count[r];
        out[r]          = partial + 16;
    }
    if (g.is_empty()) {
        return;
    }
    compute_scores(p, g, span, s);
    compute_weights(p, table, tile, kv_head, g, s);
    if (p.v_type == KvType::q8_0) {
        multiply_q8(p, g, s, out);
    } else {
        multiply_f16(p, g, span, s, out);
    }
}

// The cells of a tile's block; returns their number, 0 past the last block.
inline int list_block(const Problem & p, const RowTable & table, const Tile & tile, int block, int32_t * cells) {
    const int widest = block_size + tile.shift[tile.num_rows - 1], left = tile.count - block * block_size;
    const int n = left < 0 ? 0 : left < widest ? left : widest;
    list_joint_cells(p, table, tile, block * block_size, n, cells);
    return n;
}

// Packs what the tile needs of a block and computes the partials of all its rows.
inline void block_partials(const Problem & p, const RowTable & table, const Tile & tile, int kv_head, int block,
                           const Scratch & s) {
    const int  n = list_block(p, table, tile, block, s.cells), rows = tile.num_rows * p.group();
    const int  num_next = list_block(p, table, tile, block + 1, s.next_cells);
    const Span span     = pack(p, tile, kv_head, n, num_next, s);
    // As even as can be: eight heads are better four and four than six and two.
    const int num_groups = (rows + rows_at_once(p) - 1) / rows_at_once(p);
    const int per        = ((rows + num_groups - 1) / num_groups + 1) / 2 * 2;
    for (int i = 0; i < rows; i += per) {
        const Group g(p, table, tile, block, i, rows - i < per ? rows - i : per);
        block_rows(p, table, tile, kv_head, g, span, s);
    }
}

}  // namespace fa
}  // namespace axion
