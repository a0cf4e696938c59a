// One block of one tile: scores, softmax weights and the product with V over at most 256 ranks of every row, giving
// per row a partial result (maximum, sum, values); and how partials are combined, always in order of the blocks.
//
// The batched and the single-row case are this same code, and each row only ever meets its own ranks: the tile it is in
// decides which rows share packed operands, nothing else. Scores are kept times log2(e).
#pragma once

#include "flash_attn_mask.h"
#include "flash_attn_tile_f16.h"

#include <initializer_list>
#include <type_traits>

namespace axion {
namespace fa {

constexpr float log2_e = 1.44269504f;

// Floats of a partial: maximum, sum, number of ranks, then from 16 on the values.
inline size_t partial_size(int dv) {
    return 16 + (size_t) (dv + 15) / 16 * 16;
}

// A thread's buffers. Rows are those of a tile for one KV head: row t * group + h.
struct Scratch {
    int32_t *     cells;
    const char ** rows;
    int8_t *      k8;
    float *       k_scales;
    int8_t *      v8;
    float *       v_scales;
    float *       k32;
    float *       v32;
    int8_t *      q8;
    float *       q_scales;
    int32_t *     q_starts;
    float *       q32;
    float *       scores;      // [group_rows][span]
    uint8_t *     digits;      // [group_rows][dv/32][2][span]
    float *       v_weights;   // [dv/32][block] V's scales as the current row's weights want them
    float *       out_scales;  // [dv/32][group_rows]
    float *       partials;    // [rows]
    float *       states;      // [rows]
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
    take(s.rows, span_size);
    take(s.k8, kq * p.dk * span_size);
    take(s.k_scales, kq * kb * span_size);
    take(s.v8, vq * p.dv * span_size);
    take(s.v_scales, vq * vb * span_size);
    take(s.k32, (1 - kq) * p.dk * span_size);
    take(s.v32, (1 - vq) * p.dv * span_size);
    take(s.q8, kq * p.dk * rows);
    take(s.q_scales, kq * kb * rows);
    take(s.q_starts, kq * kb * rows);
    take(s.q32, (1 - kq) * p.dk * rows);
    take(s.scores, (size_t) group_rows * span_size);
    take(s.digits, vq * group_rows * vb * 2 * span_size);
    take(s.v_weights, vq * vb * block_size);
    take(s.out_scales, vq * vb * group_rows);
    take(s.partials, rows * partial_size(p.dv));
    take(s.states, rows * partial_size(p.dv));
    return used;
}

// One query row to int8, 32 values to a scale, as upstream quantises it (but for the scale, which stays FP32).
inline void quantise_query(const float * x, int dk, float scale, int8_t * values, float * scales, int32_t * starts) {
    for (int b = 0; b < dk / quant_size; b++, x += quant_size, values += quant_size) {
        f32x16     low = load16(x), high = load16(x + 16);
        const bool is_finite = sum_lanes((low + high) * 0.0f) == 0.0f;
        if (!is_finite) {
            low = high = f32x16{};
        }
        const float max     = max_lanes(max16(abs16(low), abs16(high)));
        const float inverse = max > 1e-30f ? 127.0f / max : 0.0f;
        // Rounds, and leaves the integer in the low bits.
        const f32x16 magic = splat16(0x1.8p23f);
        const i32x16 a     = bits16(fma16(low, splat16(inverse), magic)) - bits16(magic);
        const i32x16 c     = bits16(fma16(high, splat16(inverse), magic)) - bits16(magic);
        const i32x16 sums  = a + c;
        int32_t      sum   = 0;
        for (int i = 0; i < 16; i++) {
            values[i]      = (int8_t) a[i];
            values[i + 16] = (int8_t) c[i];
            sum += sums[i];
        }
        scales[b] = is_finite ? max / 127.0f * scale : NAN;
        starts[b] = -k_bias * sum;
    }
}

inline void prepare_queries(const Problem & p, const Tile & tile, int kv_head, const Scratch & s) {
    const float scale = p.softcap != 0 ? p.scale / p.softcap : p.scale * log2_e;
    for (int t = 0; t < tile.num_rows; t++) {
        for (int h = 0; h < p.group(); h++) {
            const int     row = tile.first + t, i = t * p.group() + h;
            const float * q = (const float *) p.q.at(row % p.num_rows, kv_head * p.group() + h, row / p.num_rows);
            if (p.k_type == KvType::q8_0) {
                const size_t kb = p.dk / quant_size;
                quantise_query(q, p.dk, scale, s.q8 + (size_t) i * p.dk, s.q_scales + i * kb, s.q_starts + i * kb);
            } else {
                for (int d = 0; d < p.dk; d++) {
                    s.q32[(size_t) i * p.dk + d] = q[d] * scale;
                }
            }
        }
    }
}

// Points s.rows at a head's rows, and asks for those one block further on, which are likely to be next.
inline void locate(const View & view, size_t row_bytes, int kv_head, int stream, int n, const Scratch & s) {
    for (int i = 0; i < n; i++) {
        const char * row = view.at(s.cells[i], kv_head, stream);
        s.rows[i]        = row;
        for (size_t line = 0; line < row_bytes; line += 64) {
            __builtin_prefetch(row + block_size * view.position + line, 0, 1);
        }
    }
}

inline void pack(const Problem & p, int kv_head, int stream, int n, const Scratch & s) {
    locate(p.k, row_bytes(p.k_type, p.dk), kv_head, stream, n, s);
    if (p.k_type == KvType::q8_0) {
        pack_k_q8(s.rows, n, p.dk, s.k8, s.k_scales);
    } else {
        pack_k_f16(s.rows, n, p.dk, s.k32);
    }
    locate(p.v, row_bytes(p.v_type, p.dv), kv_head, stream, n, s);
    if (p.v_type == KvType::q8_0) {
        pack_v_q8(s.rows, n, p.dv, s.v8, s.v_scales);
    } else {
        pack_v_f16(s.rows, n, p.dv, s.v32);
    }
}

// tanh(x) = 1 - 2 / (e^2x + 1)
inline f32x16 tanh16(f32x16 x) {
    return 1.0f - 2.0f / (exp16(x + x) + 1.0f);
}

// Softcap and mask values, where there are any: x[i] becomes the score of rank i.
inline void adjust_scores(const Problem & p, float * x, int n, const uint16_t * mask, const int32_t * cells,
                          float slope) {
    if (p.softcap != 0) {
        for (int i = 0; i < n; i += 16) {
            store16(x + i, tanh16(load16(x + i)) * (p.softcap * log2_e));
        }
    }
    if (mask != nullptr) {
        for (int i = 0; i < n; i++) {
            x[i] += slope * half_to_float(mask[cells[i]]) * log2_e;
        }
    }
}

// The weights 2^(x - max) of n ranks in x (zero up to the next 16), and their sum.
inline float exponentiate(float * x, int n, float max) {
    f32x16 sum[2] = {};
    int    i      = 0;
    for (; i + 16 <= n; i += 16) {
        const f32x16 w = exp2_nonpositive(load16(x + i) - max);
        sum[i / 16 % 2] += w;
        store16(x + i, w);
    }
    if (i < n) {
        const f32x16 w =
            first_lanes(n - i, exp2_nonpositive(first_lanes(n - i, load16(x + i) - max, f32x16{})), f32x16{});
        sum[i / 16 % 2] += w;
        store16(x + i, w);
    }
    return sum_lanes(sum[0] + sum[1]);
}

inline float maximum(const float * x, int n) {
    f32x16 m[2] = { splat16(-INFINITY), splat16(-INFINITY) };
    int    i    = 0;
    for (; i + 16 <= n; i += 16) {
        m[i / 16 % 2] = max16(load16(x + i), m[i / 16 % 2]);
    }
    if (i < n) {
        m[0] = max16(first_lanes(n - i, load16(x + i), splat16(-INFINITY)), m[0]);
    }
    return max_lanes(max16(m[0], m[1]));
}

// V's scales over a row's n ranks, each times weight_max / the largest of them: a weight times this fits two digits.
inline void prepare_v_weights(const Problem & p, const Scratch & s, int shift, int n, float * unit) {
    for (int b = 0; b < p.dv / quant_size; b++) {
        const float * scales  = s.v_scales + b * span_size + shift;
        const float   largest = maximum(scales, n);
        const f32x16  factor  = splat16(largest > 0 ? weight_max / largest : 0.0f);
        for (int i = 0; i < n; i += 16) {
            store16(s.v_weights + b * block_size + i, load16(scales + i) * factor);
        }
        unit[b] = largest / weight_max;
    }
}

// Row r's digits at its ranks, zero elsewhere in the span's positions [begin, end).
inline void write_digits(const Problem & p, const Scratch & s, int r, const float * w, int shift, int n, int begin,
                         int end) {
    const Digits digits{ s.digits, p.dv / quant_size };
    for (int b = 0; b < digits.num_scales; b++) {
        uint8_t * high = digits.row(r, b, 0);
        uint8_t * low  = digits.row(r, b, 1);
        for (int i = 0; i < n; i += 16) {
            store_digits(load16(w + i) * load16(s.v_weights + b * block_size + i), high + shift + i, low + shift + i);
        }
        const int past = shift + (n + 15) / 16 * 16;
        for (uint8_t * row : { high, low }) {
            memset(row + begin, 0, shift - begin);
            memset(row + past, 0, end > past ? end - past : 0);
        }
    }
}

// Rows [i0, i0 + n) of the tile, at most group_rows, over block `block`.
inline void block_rows(const Problem & p, const RowTable & table, const Tile & tile, int kv_head, int block, int i0,
                       int n, const Scratch & s) {
    const int    group = p.group(), vb = p.dv / quant_size;
    const size_t stride = partial_size(p.dv);
    int          shift[group_rows], count[group_rows], begin = span_size, end = 0;
    for (int r = 0; r < n; r++) {
        const int t                       = (i0 + r) / group;
        const int left                    = table.info[tile.first + t].count - block * block_size;
        shift[r]                          = tile.shift[t];
        count[r]                          = left < 0 ? 0 : left < block_size ? left : block_size;
        s.partials[(i0 + r) * stride + 2] = (float) count[r];
        if (count[r] > 0) {
            begin = shift[r] < begin ? shift[r] : begin;
            end   = shift[r] + count[r] > end ? shift[r] + count[r] : end;
        }
    }
    if (end == 0) {
        return;
    }
    if (p.k_type == KvType::q8_0) {
        const size_t  kb = p.dk / quant_size;
        const QueryQ8 q  = { s.q8 + (size_t) i0 * p.dk, s.q_scales + i0 * kb, s.q_starts + i0 * kb, p.dk };
        scores_q8(q, n, s.k8, s.k_scales, begin / 16, (end + 15) / 16, s.scores);
    } else {
        scores_f16(s.q32 + (size_t) i0 * p.dk, p.dk, n, s.k32, begin / 16, (end + 15) / 16, s.scores);
    }
    const int first4 = begin / 4, last4 = (end + 3) / 4;
    float     unit[max_head / quant_size];
    float *   out[group_rows];
    for (int r = 0; r < n; r++) {
        float *          partial = s.partials + (i0 + r) * stride;
        float *          x       = s.scores + r * span_size + shift[r];
        const int        row = tile.first + (i0 + r) / group, head = kv_head * group + (i0 + r) % group;
        const uint16_t * mask = table.info[row].biased ? p.mask_row(row % p.num_rows, row / p.num_rows) : nullptr;
        out[r]                = partial + 16;
        if (count[r] > 0) {
            if (mask != nullptr || p.softcap != 0) {
                adjust_scores(p, x, count[r], mask, s.cells + shift[r], p.slope(head));
            }
            partial[0] = maximum(x, count[r]);
            partial[1] = exponentiate(x, count[r], partial[0]);
        }
        if (p.v_type == KvType::q8_0) {
            if (r == 0 || shift[r] != shift[r - 1] || count[r] != count[r - 1]) {
                prepare_v_weights(p, s, shift[r], count[r], unit);
            }
            write_digits(p, s, r, x, count[r] > 0 ? shift[r] : first4 * 4, count[r], first4 * 4, last4 * 4);
            for (int b = 0; b < vb; b++) {
                s.out_scales[b * group_rows + r] = unit[b];
            }
        } else {
            const int from = count[r] > 0 ? shift[r] : begin, past = from + count[r];
            memset(s.scores + r * span_size + begin, 0, (from - begin) * sizeof(float));
            memset(s.scores + r * span_size + past, 0, (end > past ? end - past : 0) * sizeof(float));
        }
    }
    if (p.v_type == KvType::q8_0) {
        for (int b = 0; b < vb; b++) {
            values_q8({ s.digits, vb }, n, s.v8, b, first4, last4, s.out_scales + b * group_rows, out);
        }
    } else {
        values_f16(s.scores, n, s.v32, p.dv, begin, end, out);
    }
}

// Packs what the tile needs of a block and computes the partials of all its rows.
inline void block_partials(const Problem & p, const RowTable & table, const Tile & tile, int kv_head, int block,
                           const Scratch & s) {
    const int widest = block_size + tile.shift[tile.num_rows - 1], left = tile.count - block * block_size;
    const int n = left < widest ? left : widest;
    list_joint_cells(p, table, tile, block * block_size, n, s.cells);
    pack(p, kv_head, tile.first / p.num_rows, n, s);
    for (int i = 0; i < tile.num_rows * p.group(); i += group_rows) {
        const int rows = tile.num_rows * p.group() - i;
        block_rows(p, table, tile, kv_head, block, i, rows < group_rows ? rows : group_rows, s);
    }
}

// a and c of: state = state * a + partial * c, with the new maximum.
inline void combine_factors(float old_max, float max, float & new_max, float & a, float & c) {
    new_max        = max > old_max || max != max ? max : old_max;
    const f32x16 e = exp2_nonpositive(f32x16{ old_max - new_max, max - new_max });
    a              = e[0];
    c              = e[1];
}

inline void clear_state(float * state, int dv) {
    memset(state, 0, partial_size(dv) * sizeof(float));
    state[0] = -INFINITY;
}

inline void merge(float * state, const float * partial, int dv) {
    if (partial[2] == 0) {
        return;
    }
    float a, c;
    combine_factors(state[0], partial[0], state[0], a, c);
    state[1] = __builtin_fmaf(partial[1], c, state[1] * a);
    for (int d = 16; d < (int) partial_size(dv); d += 16) {
        store16(state + d, fma16(load16(partial + d), splat16(c), load16(state + d) * a));
    }
}

// The sink, a score without a value, comes last; then the division by the sum. A row that sees nothing is zero.
inline void finish(const Problem & p, float * state, int row, int head) {
    float * out = (float *) p.out.at(row % p.num_rows, head, row / p.num_rows);
    float   a = 1, c = 0;
    if (p.sinks != nullptr) {
        combine_factors(state[0], p.sinks[head] * log2_e, state[0], a, c);
    }
    const float sum    = __builtin_fmaf(state[1], a, c);
    const float factor = sum == 0 ? 0.0f : a / sum;
    for (int d = 0; d < p.dv; d++) {
        out[d] = state[16 + d] * factor;
    }
}

}  // namespace fa
}  // namespace axion
