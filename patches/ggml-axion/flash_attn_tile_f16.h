// Flash attention's products over an F16 cache, in FP32, with vectors of the machine's width: one fma per term in the
// order of values (K.Q) or positions (V), for any number of rows. K is widened and transposed, V widened: once per span
// when several groups of rows go through it, else on the way.
//   K: float [span/16][dk][16 positions]   V: float [span][dv]
#pragma once

#include "flash_attn_transpose.h"

namespace axion {
namespace fa {

// What fits the registers beside group_rows rows: 24 accumulators of 32, or 12 of 16.
constexpr int tile_parts  = lanes == 8 ? 2 : 4;
constexpr int tile_groups = tile_parts * lanes / 16;
static_assert(tile_groups > 0 && group_rows * tile_parts <= 24, "registers");

// Positions [begin, end), multiples of 16 but for n, the number of rows.
inline void pack_k_f16(const char * const * rows, int n, int dk, int begin, int end, float * k32) {
    for (int p = begin; p < end; p += lanes) {
        float * out = k32 + (size_t) (p / 16) * 16 * dk + p % 16;
        for (int d = 0; d < dk; d += lanes) {
            vf32 m[lanes];
            AXION_UNROLL
            for (int i = 0; i < lanes; i++) {
                m[i] = vload_half(rows[p + i < n ? p + i : n - 1] + 2 * d);
            }
            transpose(m);
            AXION_UNROLL
            for (int i = 0; i < lanes; i++) {
                vstore(out + (size_t) (d + i) * 16, m[i]);
            }
        }
    }
}

// False: some value is no number.
inline bool pack_v_f16(const char * const * rows, int n, int dv, float * v32) {
    vf32 zero = {};
    for (int p = 0; p < n; p++) {
        for (int d = 0; d < dv; d += lanes) {
            const vf32 v = vload_half(rows[p] + 2 * d);
            zero         = vfma(v, vsplat(0.0f), zero);
            vstore(v32 + (size_t) p * dv + d, v);
        }
    }
    float sum = 0;
    for (int i = 0; i < lanes; i++) {
        sum += zero[i];
    }
    return sum == 0.0f;
}

template <int R, int parts>
AXION_OWN_FRAME void scores_f16_tile(const float * q, int dk, const float * k32, float * out) {
    vf32 s[R][parts] = {};
    for (int d = 0; d < dk; d++) {
        vf32 k[parts];
        AXION_UNROLL
        for (int c = 0; c < parts; c++) {
            k[c] = vload(k32 + (size_t) (c * lanes / 16) * 16 * dk + d * 16 + c * lanes % 16);
        }
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            const vf32 x = vsplat(q[(size_t) r * dk + d]);
            AXION_UNROLL
            for (int c = 0; c < parts; c++) {
                s[r][c] = vfma(x, k[c], s[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < parts; c++) {
            vstore(out + r * span_size + c * lanes, s[r][c]);
        }
    }
}

template <int R>
inline void scores_f16_rows(const float * q, int dk, const float * k32, int begin, int end, float * out) {
    int g = begin;
    for (; g + tile_groups <= end; g += tile_groups) {
        scores_f16_tile<R, tile_parts>(q, dk, k32 + (size_t) g * 16 * dk, out + g * 16);
    }
    for (; g < end; g++) {
        scores_f16_tile<R, 16 / lanes>(q, dk, k32 + (size_t) g * 16 * dk, out + g * 16);
    }
}

// n query rows times the positions of the 16-groups [begin, end).
inline void scores_f16(const float * q, int dk, int n, const float * k32, int begin, int end, float * out) {
    int r = 0;
    for (; r + 6 <= n; r += 6) {
        scores_f16_rows<6>(q + (size_t) r * dk, dk, k32, begin, end, out + r * span_size);
    }
    for (; n - r == 3 || n - r == 5; r += 3) {
        scores_f16_rows<3>(q + (size_t) r * dk, dk, k32, begin, end, out + r * span_size);
    }
    for (; r + 4 <= n; r += 4) {
        scores_f16_rows<4>(q + (size_t) r * dk, dk, k32, begin, end, out + r * span_size);
    }
    for (; r + 2 <= n; r += 2) {
        scores_f16_rows<2>(q + (size_t) r * dk, dk, k32, begin, end, out + r * span_size);
    }
    if (r < n) {
        scores_f16_rows<1>(q + (size_t) r * dk, dk, k32, begin, end, out + r * span_size);
    }
}

// Widened V, or the cache's own rows.
struct Widened {
    const float * v32;
    int           dv;

    vf32 at(int p, int d) const {
        return vload(v32 + (size_t) p * dv + d);
    }
};

struct Halves {
    const char * const * rows;

    vf32 at(int p, int d) const {
        return vload_half(rows[p] + 2 * d);
    }
};

// R rows, the values of `parts` vectors from d, over positions [begin, end); weights are rows of span_size floats.
template <int R, int parts, class V>
AXION_OWN_FRAME void values_f16_tile(const float * w, const V & v, int d, int begin, int end, float * const * out) {
    vf32 acc[R][parts] = {};
    for (int p = begin; p < end; p++) {
        vf32 x[parts];
        AXION_UNROLL
        for (int c = 0; c < parts; c++) {
            x[c] = v.at(p, d + c * lanes);
        }
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            const vf32 weight = vsplat(w[r * span_size + p]);
            AXION_UNROLL
            for (int c = 0; c < parts; c++) {
                acc[r][c] = vfma(weight, x[c], acc[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < parts; c++) {
            vstore(out[r] + d + c * lanes, acc[r][c]);
        }
    }
}

template <int R, class V>
inline void values_f16_rows(const float * w, const V & v, int dv, int begin, int end, float * const * out) {
    int d = 0;
    for (; d + tile_parts * lanes <= dv; d += tile_parts * lanes) {
        values_f16_tile<R, tile_parts>(w, v, d, begin, end, out);
    }
    for (; d < dv; d += 16) {
        values_f16_tile<R, 16 / lanes>(w, v, d, begin, end, out);
    }
}

template <class V>
inline void values_f16(const float * w, int n, const V & v, int dv, int begin, int end, float * const * out) {
    int r = 0;
    for (; r + 6 <= n; r += 6) {
        values_f16_rows<6>(w + r * span_size, v, dv, begin, end, out + r);
    }
    for (; n - r == 3 || n - r == 5; r += 3) {
        values_f16_rows<3>(w + r * span_size, v, dv, begin, end, out + r);
    }
    for (; r + 4 <= n; r += 4) {
        values_f16_rows<4>(w + r * span_size, v, dv, begin, end, out + r);
    }
    for (; r + 2 <= n; r += 2) {
        values_f16_rows<2>(w + r * span_size, v, dv, begin, end, out + r);
    }
    if (r < n) {
        values_f16_rows<1>(w + r * span_size, v, dv, begin, end, out + r);
    }
}

}  // namespace fa
}  // namespace axion
