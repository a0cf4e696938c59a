// Flash attention's products over an F16 cache, in FP32: K and V are widened once per span, then one fma per term in
// the order of values (K.Q) or positions (V), for any number of rows.
#pragma once

#include "flash_attn_layout.h"
#include "vecmath.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#include "flash_attn_tile_avx512.h"
#else
#include "flash_attn_tile_plain.h"
#endif

namespace axion {
namespace fa {

inline void transpose_16x16(f32x16 m[16]) {
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < 16; i++) {
            if (i & step) {
                continue;
            }
            const f32x16 a = m[i], b = m[i + step];
            // Lanes with bit `step` set of a change places with lanes without it of b.
            i32x16 from_a, from_b;
            for (int l = 0; l < 16; l++) {
                from_a[l] = l & step ? 16 + l - step : l;
                from_b[l] = l & step ? 16 + l : l + step;
            }
#if defined(__clang__)
            for (int l = 0; l < 16; l++) {
                m[i][l]        = from_a[l] < 16 ? a[from_a[l]] : b[from_a[l] - 16];
                m[i + step][l] = from_b[l] < 16 ? a[from_b[l]] : b[from_b[l] - 16];
            }
#else
            m[i]        = __builtin_shuffle(a, b, from_a);
            m[i + step] = __builtin_shuffle(a, b, from_b);
#endif
        }
    }
}

inline void pack_k_f16(const char * const * rows, int n, int dk, float * k32) {
    for (int g = 0; g * 16 < n; g++) {
        for (int d = 0; d < dk; d += 16) {
            f32x16 m[16];
            for (int i = 0; i < 16; i++) {
                m[i] = load_half16(rows[g * 16 + i < n ? g * 16 + i : n - 1] + 2 * d);
            }
            transpose_16x16(m);
            for (int i = 0; i < 16; i++) {
                store16(k32 + ((size_t) g * dk + d + i) * 16, m[i]);
            }
        }
    }
}

inline void pack_v_f16(const char * const * rows, int n, int dv, float * v32) {
    for (int p = 0; p < n; p++) {
        for (int d = 0; d < dv; d += 16) {
            store16(v32 + (size_t) p * dv + d, load_half16(rows[p] + 2 * d));
        }
    }
}

template <int R, int C>
AXION_OWN_FRAME void scores_f16_tile(const float * q, int dk, int row, const float * k32, int g, float * out) {
    f32x16        s[R][C] = {};
    const float * x       = q + (size_t) row * dk;
    for (int d = 0; d < dk; d++) {
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            const f32x16 k = load16(k32 + ((size_t) (g + c) * dk + d) * 16);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                s[r][c] = fma16(splat16(x[(size_t) r * dk + d]), k, s[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            store16(out + (row + r) * span_size + (g + c) * 16, s[r][c]);
        }
    }
}

template <int R>
inline void scores_f16_rows(const float * q, int dk, int row, const float * k32, int g, int end, float * out) {
    for (; g + 4 <= end; g += 4) {
        scores_f16_tile<R, 4>(q, dk, row, k32, g, out);
    }
    for (; g < end; g++) {
        scores_f16_tile<R, 1>(q, dk, row, k32, g, out);
    }
}

inline void scores_f16(const float * q, int dk, int n, const float * k32, int begin, int end, float * out) {
    int r = 0;
    for (; r + 6 <= n; r += 6) {
        scores_f16_rows<6>(q, dk, r, k32, begin, end, out);
    }
    for (; r + 3 <= n; r += 3) {
        scores_f16_rows<3>(q, dk, r, k32, begin, end, out);
    }
    for (; r < n; r++) {
        scores_f16_rows<1>(q, dk, r, k32, begin, end, out);
    }
}

// R rows, 16 * C values from column d, over positions [begin, end); weights are rows of span_size floats.
template <int R, int C>
AXION_OWN_FRAME void values_f16_tile(const float * w, int row, const float * v32, int dv, int d, int begin, int end,
                                     float * const * out) {
    f32x16        acc[R][C] = {};
    const float * x         = w + (size_t) row * span_size;
    for (int p = begin; p < end; p++) {
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            const f32x16 v = load16(v32 + (size_t) p * dv + d + c * 16);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                acc[r][c] = fma16(splat16(x[r * span_size + p]), v, acc[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            store16(out[row + r] + d + c * 16, acc[r][c]);
        }
    }
}

template <int R>
inline void values_f16_rows(const float * w, int row, const float * v32, int dv, int begin, int end,
                            float * const * out) {
    int d = 0;
    for (; d + 64 <= dv; d += 64) {
        values_f16_tile<R, 4>(w, row, v32, dv, d, begin, end, out);
    }
    for (; d < dv; d += 16) {
        values_f16_tile<R, 1>(w, row, v32, dv, d, begin, end, out);
    }
}

inline void values_f16(const float * w, int n, const float * v32, int dv, int begin, int end, float * const * out) {
    int r = 0;
    for (; r + 6 <= n; r += 6) {
        values_f16_rows<6>(w, r, v32, dv, begin, end, out);
    }
    for (; r + 3 <= n; r += 3) {
        values_f16_rows<3>(w, r, v32, dv, begin, end, out);
    }
    for (; r < n; r++) {
        values_f16_rows<1>(w, r, v32, dv, begin, end, out);
    }
}

}  // namespace fa
}  // namespace axion
