// Flash attention's passes over vectors of floats: queries to int8, scores to softmax weights, V's scales folded into
// the weights, partial results combined. Scores are kept times log2(e). Every loop adds in an order that depends only
// on a row's own ranks: 32 running values, folded in one tree.
#pragma once

#include "flash_attn_problem.h"
#include "hadamard.h"
#include "vecmath.h"

namespace axion {
namespace fa {

constexpr float log2_e = 1.44269504f;
constexpr int   chains = 32 / lanes;  // vectors that hold the running values

// Floats of a partial: maximum, sum, number of ranks, then from 16 on the values.
inline size_t partial_size(int dv) {
    return 16 + (size_t) (dv + 15) / 16 * 16;
}

// `a` in the first n lanes, `b` in the others.
inline vf32 first_of(int n, vf32 a, vf32 b) {
    static const int32_t numbers[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    vi32                 lane;
    memcpy(&lane, numbers, sizeof lane);
    return lane < n ? a : b;
}

template <class F> inline float fold_chains(const vf32 v[chains], F both) {
    float s[32];
    for (int c = 0; c < chains; c++) {
        vstore(s + c * lanes, v[c]);
    }
    for (int n = 16; n > 0; n /= 2) {
        for (int i = 0; i < n; i++) {
            s[i] = both(s[i], s[i + n]);
        }
    }
    return s[0];
}

// The largest of n > 0 floats; may read up to the next multiple of 16. A NaN may be lost.
inline float maximum(const float * x, int n) {
    vf32 m[chains];
    AXION_UNROLL
    for (int c = 0; c < chains; c++) {
        m[c] = vsplat(-INFINITY);
    }
    int i = 0;
    for (; i + 32 <= n; i += 32) {
        AXION_UNROLL
        for (int c = 0; c < chains; c++) {
            m[c] = vmax(vload(x + i + c * lanes), m[c]);
        }
    }
    for (; i < n; i += lanes) {
        m[0] = vmax(first_of(n - i, vload(x + i), vsplat(-INFINITY)), m[0]);
    }
    return fold_chains(m, [](float a, float b) { return a > b ? a : b; });
}

// The weights 2^(x - max) of n ranks in x (zero up to the next 16), and their sum.
inline float exponentiate(float * x, int n, float max) {
    vf32 sum[chains] = {};
    int  i           = 0;
    for (; i + 32 <= n; i += 32) {
        AXION_UNROLL
        for (int c = 0; c < chains; c++) {
            const vf32 w = exp2_flushed(vload(x + i + c * lanes) - max);
            sum[c] += w;
            vstore(x + i + c * lanes, w);
        }
    }
    const int left = n - i;
    AXION_UNROLL
    for (int c = 0; c < chains; c++) {
        const int at = c * lanes;
        if (at < (left + 15) / 16 * 16) {
            const vf32 w = exp2_flushed(first_of(left - at, vload(x + i + at) - max, vsplat(-1000.0f)));
            sum[c] += w;
            vstore(x + i + at, w);
        }
    }
    return fold_chains(sum, [](float a, float b) { return a + b; });
}

// tanh(x) = 1 - 2 / (e^2x + 1)
inline vf32 vtanh(vf32 x) {
    return 1.0f - 2.0f / (exp_full(x + x) + 1.0f);
}

// Softcap and mask values, where there are any: x[i] becomes the score of rank i.
inline void adjust_scores(const Problem & p, float * x, int n, const uint16_t * mask, const int32_t * cells,
                          float slope) {
    if (p.softcap != 0) {
        for (int i = 0; i < n; i += lanes) {
            vstore(x + i, vtanh(vload(x + i)) * (p.softcap * log2_e));
        }
    }
    if (mask != nullptr) {
        for (int i = 0; i < n; i++) {
            x[i] += slope * half_to_float(mask[cells[i]]) * log2_e;
        }
    }
}

// One query row to int8, 32 values to a scale, as upstream quantises it (but for the scale, which stays FP32). `bias`
// is what K's values have been raised by.
inline void quantise_query(const float * x, int dk, float scale, int bias, int8_t * values, float * scales,
                           int32_t * starts) {
    for (int b = 0; b < dk / quant_size; b++, x += quant_size, values += quant_size) {
        vf32 v[chains], largest[chains], zero[chains];
        AXION_UNROLL
        for (int c = 0; c < chains; c++) {
            v[c]       = vload(x + c * lanes);
            largest[c] = vabs(v[c]);
            zero[c]    = v[c] * 0.0f;
        }
        const bool  is_finite = fold_chains(zero, [](float a, float b) { return a + b; }) == 0.0f;
        const float max       = is_finite ? fold_chains(largest, [](float a, float b) { return a > b ? a : b; }) : 0;
        const float inverse   = max > 1e-30f ? 127.0f / max : 0.0f;
        const vf32  magic     = vsplat(0x1.8p23f);  // rounds, and leaves the integer in the low bits
        int32_t     q[quant_size], sum = 0;
        AXION_UNROLL
        for (int c = 0; c < chains; c++) {
            const vi32 a = vbits(vfma(is_finite ? v[c] : vf32{}, vsplat(inverse), magic)) - vbits(magic);
            memcpy(q + c * lanes, &a, sizeof a);
        }
        for (int i = 0; i < quant_size; i++) {
            values[i] = (int8_t) q[i];
            sum += q[i];
        }
        scales[b] = is_finite ? max / 127.0f * scale : NAN;
        starts[b] = -bias * sum;
    }
}

// V's scales over a row's n ranks from `shift` on, each times weight_max / the largest of them, so that a weight times
// it fits the integer product; zero elsewhere in [begin, end). Returns what one unit of that product is worth.
inline float scale_weights(const float * scales, int shift, int n, int begin, int end, float weight_max, float * out) {
    const float largest = maximum(scales + shift, n);
    const vf32  factor  = vsplat(largest > 0 ? weight_max / largest : 0.0f);
    vf32        poison  = {};
    for (int i = begin; i < end; i += lanes) {
        const vf32 inside = first_of(shift - i, vf32{}, first_of(shift + n - i, vload(scales + i), vf32{}));
        poison += inside * 0.0f;
        vstore(out + i, inside * factor);
    }
    float unit = largest / weight_max;
    for (int i = 0; i < lanes; i++) {
        unit += poison[i];  // zero, unless a scale is no number
    }
    return unit;
}

// a and c of: state = state * a + partial * c, with the new maximum.
inline void combine_factors(float old_max, float max, float & new_max, float & a, float & c) {
    new_max      = max > old_max || max != max ? max : old_max;
    const vf32 e = exp2_flushed(vf32{ old_max - new_max, max - new_max });
    a            = e[0];
    c            = e[1];
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
    for (int d = 16; d < (int) partial_size(dv); d += lanes) {
        vstore(state + d, vfma(vload(partial + d), vsplat(c), vload(state + d) * a));
    }
}

// The sink, a score without a value, comes last; then the division by the sum. A row that sees nothing is zero. Then
// the turn back, of the same values in the same order as by a node of its own.
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
    for (int d = 0; p.turned != 0 && d < p.dv; d += p.turned) {
        hadamard_row(out + d, p.turned, out + d);
    }
}

}  // namespace fa
}  // namespace axion
