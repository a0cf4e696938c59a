// The plain twin of the quantised tiles: one row times one column, block by block, as the formats are defined.
//
// It keeps the chain that mul_mat_tile.h lays down, so a tile must give the same bits (as long as no scale is so small
// that FP32 denormals appear).
#pragma once

#include "mul_mat_tile.h"

#include <cmath>
#include <cstring>

#ifndef GGML_COMMON_DECL
#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#endif

namespace axion {

// Thirty-two weights of a row: value i is scale[i / 16] * q[i] + min.
struct WeightBlock {
    int   q[act_block];
    float scale[2];
    float min;
    bool  is_split;  // each half has its scale
};

inline float half_to_float(uint16_t h) {
    const int   exponent = (h >> 10) & 31, mantissa = h & 1023;
    const float sign = h >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) {
        return mantissa ? NAN : sign * INFINITY;
    }
    return sign * (exponent ? ldexpf((float) (1024 + mantissa), exponent - 25) : ldexpf((float) mantissa, -24));
}

inline float half_at(const void * block, size_t offset) {
    uint16_t h;
    memcpy(&h, (const char *) block + offset, sizeof h);
    return half_to_float(h);
}

inline int nibble(const uint8_t * qs, int i) {
    return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}

inline int bit(const uint8_t * qh, int i) {
    return qh[i / 8] >> (i % 8) & 1;
}

// Scale and min of block i of a Q4_K or Q5_K super-block.
inline void unpack_k_scales(const void * block, const uint8_t * s, int i, WeightBlock & w) {
    const int scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
    const int min   = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
    w.scale[0] = w.scale[1] = half_at(block, 0) * (float) scale;
    w.min                   = -half_at(block, 2) * (float) min;
}

// Block number b (of 32) of a packed row.
inline WeightBlock unpack_reference(ggml_type type, const void * row, int64_t b) {
    WeightBlock w{};
    float       d = 0;
    switch (type) {
    case GGML_TYPE_Q4_0: {
        const block_q4_0 & x = ((const block_q4_0 *) row)[b];
        d                    = half_at(&x, 0);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = nibble(x.qs, i) - 8;
        }
        break;
    }
    case GGML_TYPE_Q4_1: {
        const block_q4_1 & x = ((const block_q4_1 *) row)[b];
        d                    = half_at(&x, 0);
        w.min                = half_at(&x, 2);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = nibble(x.qs, i);
        }
        break;
    }
    case GGML_TYPE_Q8_0: {
        const block_q8_0 & x = ((const block_q8_0 *) row)[b];
        d                    = half_at(&x, 0);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = x.qs[i];
        }
        break;
    }
    case GGML_TYPE_IQ4_NL: {
        static const int8_t  values[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
        const block_iq4_nl & x          = ((const block_iq4_nl *) row)[b];
        d                               = half_at(&x, 0);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = values[nibble(x.qs, i)];
        }
        break;
    }
    case GGML_TYPE_Q5_0: {
        const block_q5_0 & x = ((const block_q5_0 *) row)[b];
        d                    = half_at(&x, 0);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = nibble(x.qs, i) + 16 * bit(x.qh, i) - 16;
        }
        break;
    }
    case GGML_TYPE_Q5_1: {
        const block_q5_1 & x = ((const block_q5_1 *) row)[b];
        d                    = half_at(&x, 0);
        w.min                = half_at(&x, 2);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = nibble(x.qs, i) + 16 * bit(x.qh, i);
        }
        break;
    }
    case GGML_TYPE_Q4_K: {
        const block_q4_K & x = ((const block_q4_K *) row)[b / 8];
        unpack_k_scales(&x, x.scales, (int) (b % 8), w);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = x.qs[b % 8 / 2 * 32 + i] >> (b % 2 * 4) & 15;
        }
        return w;
    }
    case GGML_TYPE_Q5_K: {
        const block_q5_K & x = ((const block_q5_K *) row)[b / 8];
        unpack_k_scales(&x, x.scales, (int) (b % 8), w);
        for (int i = 0; i < act_block; i++) {
            w.q[i] = (x.qs[b % 8 / 2 * 32 + i] >> (b % 2 * 4) & 15) + 16 * (x.qh[i] >> (b % 8) & 1);
        }
        return w;
    }
    case GGML_TYPE_Q6_K: {
        const block_q6_K & x    = ((const block_q6_K *) row)[b / 8];
        const int64_t      half = b % 8 / 4, part = b % 4;  // 128 values; 32 of them
        w.is_split = true;
        w.scale[0] = half_at(&x, 208) * x.scales[8 * half + 2 * part];
        w.scale[1] = half_at(&x, 208) * x.scales[8 * half + 2 * part + 1];
        for (int i = 0; i < act_block; i++) {
            const int low  = x.ql[64 * half + part % 2 * 32 + i] >> (part / 2 * 4) & 15;
            const int high = x.qh[32 * half + i] >> (2 * part) & 3;
            w.q[i]         = low + 16 * high - 32;
        }
        return w;
    }
    default:
        d = NAN;
    }
    w.scale[0] = w.scale[1] = d;
    return w;
}

inline bool has_min(ggml_type type) {
    return type == GGML_TYPE_Q4_1 || type == GGML_TYPE_Q5_1 || type == GGML_TYPE_Q4_K || type == GGML_TYPE_Q5_K;
}

// Row times column n of a group of W.
template <int W> float dot_reference(ggml_type type, const void * row, int64_t num_blocks, const char * group, int n) {
    const ActBlock<W> * a   = (const ActBlock<W> *) group;
    float               acc = 0;
    for (int64_t b = 0; b < num_blocks; b++) {
        const WeightBlock w   = unpack_reference(type, row, b);
        int32_t           low = 0, high = 0;
        for (int i = 0; i < 16; i++) {
            low += w.q[i] * a[b].q[n][i];
            high += w.q[i + 16] * a[b].q[n][i + 16];
        }
        if (w.is_split) {
            acc = fmaf(fmaf((float) high, w.scale[1], (float) low * w.scale[0]), a[b].scale_of(n), acc);
        } else {
            acc = fmaf((float) (low + high), w.scale[0] * a[b].scale_of(n), acc);
        }
        if (has_min(type)) {
            acc = fmaf(w.min, a[b].sum_of(n), acc);
        }
    }
    return acc;
}

}  // namespace axion
