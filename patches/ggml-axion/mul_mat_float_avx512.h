// AVX-512 strips of floating-point weights: 16 rows in the lanes, one accumulator per column and strip.
//
// Straight from the rows, 16 bytes of each are transposed in registers: five shuffles for 64 bytes of weights, which is
// less than memory takes to bring them. Panels hold strip[unit][row].
#pragma once

#include "mul_mat_float_tile.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

#include "vecmath.h"

#define AXION_FLOAT_INLINE inline __attribute__((always_inline))

namespace axion {

constexpr int     step_bytes        = 16;     // of one row
constexpr int64_t float_ahead_bytes = 16384;  // prefetched at least this far ahead

// Sixteen bytes of each of 16 rows, transposed: t[i] has dword i of every row.
AXION_FLOAT_INLINE void transpose_step(const char * p, size_t stride, __m512i t[4]) {
    __m512i r[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const char * q = p + i * stride;
        __m512i      v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) q));
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 4 * stride)), 1);
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 8 * stride)), 2);
        r[i]           = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 12 * stride)), 3);
    }
    const __m512i ab0 = _mm512_unpacklo_epi32(r[0], r[1]), ab2 = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi32(r[2], r[3]), cd2 = _mm512_unpackhi_epi32(r[2], r[3]);
    t[0] = _mm512_unpacklo_epi64(ab0, cd0);
    t[1] = _mm512_unpackhi_epi64(ab0, cd0);
    t[2] = _mm512_unpacklo_epi64(ab2, cd2);
    t[3] = _mm512_unpackhi_epi64(ab2, cd2);
}

// A format: the units that one step of 16 bytes a row makes, and the arithmetic on a unit.
struct F32Avx512 {
    static constexpr int values_per_unit = 1, units = 4, value_bytes = 4;

    static AXION_FLOAT_INLINE void load(const char * p, size_t stride, __m512i w[units]) {
        transpose_step(p, stride, w);
    }
    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), acc);
    }
    static uint32_t unit_of(const float * x) {
        uint32_t u;
        memcpy(&u, x, sizeof u);
        return u;
    }
};

struct F16Avx512 : F32Avx512 {
    static constexpr int units = 8, value_bytes = 2;

    static AXION_FLOAT_INLINE void load(const char * p, size_t stride, __m512i w[units]) {
        const __m512i even_then_odd = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30,
                                                       28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        __m512i       pair[4];
        transpose_step(p, stride, pair);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m512i v = _mm512_permutexvar_epi16(even_then_odd, pair[i]);
            w[2 * i]        = _mm512_castps_si512(_mm512_cvtph_ps(_mm512_castsi512_si256(v)));
            w[2 * i + 1]    = _mm512_castps_si512(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(v, 1)));
        }
    }
};

#if defined(__AVX512BF16__)

struct BF16Avx512 {
    static constexpr int values_per_unit = 2, units = 4, value_bytes = 2;

    static AXION_FLOAT_INLINE void load(const char * p, size_t stride, __m512i w[units]) {
        transpose_step(p, stride, w);
    }
    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, (__m512bh) w, (__m512bh) x);
    }
    static uint32_t unit_of(const float * x) {
        const __m128bh pair = _mm_cvtneps_pbh(_mm_castsi128_ps(_mm_loadl_epi64((const __m128i *) x)));
        return (uint32_t) _mm_cvtsi128_si32((__m128i) pair);
    }
};

#else

struct BF16Avx512 : F32Avx512 {
    static constexpr int units = 8, value_bytes = 2;

    static AXION_FLOAT_INLINE void load(const char * p, size_t stride, __m512i w[units]) {
        __m512i pair[4];
        transpose_step(p, stride, pair);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            w[2 * i]     = _mm512_slli_epi32(pair[i], 16);
            w[2 * i + 1] = _mm512_and_si512(pair[i], _mm512_set1_epi32((int) 0xffff0000));
        }
    }
};

#endif

// The last bytes of 16 rows, filled up with zeros to a step.
struct RowTails {
    alignas(16) char bytes[tile_rows][step_bytes] = {};

    RowTails(const char * rows, size_t row_bytes, size_t n) {
        for (size_t r = 0; r < (size_t) tile_rows; r++) {
            memcpy(bytes[r], rows + r * row_bytes, n);
        }
    }
};

// Calls step(rows, stride) for every 16 bytes of n values.
template <class F, class Step>
AXION_FLOAT_INLINE void each_step(const char * rows, size_t stride, int64_t n, Step step) {
    constexpr int64_t values = step_bytes / F::value_bytes;
    for (; n >= values; n -= values, rows += step_bytes) {
        step(rows, stride);
    }
    if (n > 0) {
        const RowTails tails(rows, stride, (size_t) (n * F::value_bytes));
        step(tails.bytes[0], (size_t) step_bytes);
    }
}

template <class F, int W>
void fused_strip(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * x, const TileOutput & out) {
    __m512       total[W];
    const size_t tile  = tile_rows * row_bytes;
    const char * ahead = rows + tile * (1 + float_ahead_bytes / tile);
    for (int64_t k = 0; k < num_values; k += piece_values, rows += piece_values * F::value_bytes) {
        __m512 acc[W];
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            acc[n] = _mm512_setzero_ps();
        }
        const int64_t left = num_values - k < piece_values ? num_values - k : piece_values;
        each_step<F>(rows, row_bytes, left, [&](const char * p, size_t stride) __attribute__((always_inline)) {
        // Sixteen short streams are too much for the hardware's prefetcher; the strips to come are one stream.
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                _mm_prefetch(ahead + 64 * i, _MM_HINT_T1);
            }
            ahead += tile_rows * step_bytes;
            __m512i w[F::units];
            F::load(p, stride, w);
#pragma GCC unroll 8
            for (int u = 0; u < F::units; u++) {
#pragma GCC unroll 8
                for (int n = 0; n < W; n++) {
                    acc[n] = F::mac(acc[n], w[u], _mm512_set1_epi32((int) x[u * W + n]));
                }
            }
            x += F::units * W;
        });
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            total[n] = k == 0 ? acc[n] : _mm512_add_ps(total[n], acc[n]);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < W; n++) {
        _mm512_mask_storeu_ps(out.dst[n] + out.row, out.lanes, total[n]);
    }
}

template <class F> void pack_strip(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip) {
    // Sixteen short streams again: the next strip's lines are asked for meanwhile, a quarter of its rows at each step.
    const size_t tile  = tile_rows * row_bytes;
    size_t       ahead = 0;
    each_step<F>(rows + k * F::value_bytes, row_bytes, n, [&](const char * p, size_t stride) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            _mm_prefetch(p + tile + (ahead + i) * row_bytes, _MM_HINT_T1);
        }
        ahead = (ahead + 4) % (size_t) tile_rows;
        __m512i w[F::units];
        F::load(p, stride, w);
#pragma GCC unroll 8
        for (int u = 0; u < F::units; u++) {
            _mm512_store_si512(strip + u * unit_row_bytes, w[u]);
        }
        strip += F::units * unit_row_bytes;
    });
}

// S strips of 16 rows by W columns over one piece.
template <class F, int S, int W>
AXION_OWN_FRAME void tile_of_strips(const char * strips, int64_t num_units, const uint32_t * x, const TileOutput * out,
                                    bool first) {
    __m512 acc[S][W];
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            acc[s][n] = _mm512_setzero_ps();
        }
    }
    const char * second = strips + (S - 1) * num_units * (int64_t) unit_row_bytes;
    for (int64_t u = 0; u < num_units; u++, x += W, strips += unit_row_bytes, second += unit_row_bytes) {
        const __m512i w0 = _mm512_load_si512(strips), w1 = _mm512_load_si512(second);
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            const __m512i v = _mm512_set1_epi32((int) x[n]);
            acc[0][n]       = F::mac(acc[0][n], w0, v);
            if (S == 2) {
                acc[S - 1][n] = F::mac(acc[S - 1][n], w1, v);
            }
        }
    }
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            float * dst = out[s].dst[n] + out[s].row;
            if (!first) {
                acc[s][n] = _mm512_add_ps(_mm512_maskz_loadu_ps(out[s].lanes, dst), acc[s][n]);
            }
            _mm512_mask_storeu_ps(dst, out[s].lanes, acc[s][n]);
        }
    }
}

template <class F, int W>
void panel_strips(const char * strips, int64_t num_strips, int64_t num_units, const uint32_t * x,
                  const TileOutput * out, bool first) {
    int64_t s = 0;
    for (; s + 2 <= num_strips; s += 2) {
        tile_of_strips<F, 2, W>(strips + s * num_units * (int64_t) unit_row_bytes, num_units, x, out + s, first);
    }
    if (s < num_strips) {
        tile_of_strips<F, 1, W>(strips + s * num_units * (int64_t) unit_row_bytes, num_units, x, out + s, first);
    }
}

}  // namespace axion

#endif
