// AVX-512 strips of floating-point weights.
//
// Few columns: straight from the rows, the 16 chains of a row in the lanes. Many: 16 rows in the lanes, one accumulator
// per column and strip, one chain after the other; panels hold strip[chain][unit / chains][row].
#pragma once

#include "mul_mat_float_rows_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

namespace axion {

constexpr size_t float_ahead_bytes = 16384;  // prefetched at least this far ahead

// Sixteen rows' chains, added in order: lane r is row r.
AXION_FLOAT_INLINE __m512 sum_of_chains(const float * chains) {
    __m512i t[num_chains];
    transpose_lines((const char *) chains, num_chains * sizeof(float), t);
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int c = 0; c < (int) num_chains; c++) {
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(t[c]));
    }
    return sum;
}

// Weights that will be read soon, line by line: rows follow each other, so a strip's lines are one stream.
struct Ahead {
    const char * next;

    Ahead(const char * rows, size_t row_bytes) {
        const size_t strip = tile_rows * row_bytes;
        next               = rows + strip * (1 + float_ahead_bytes / strip);
    }
    AXION_FLOAT_INLINE void fetch() {
        _mm_prefetch(next, _MM_HINT_T1);
        next += step_bytes;
    }
};

// The chains of R rows by W columns over one piece, n values, to chains[W][row][chain].
template <class F, int R, int W>
AXION_OWN_FRAME void dot_rows(const char * rows, size_t row_bytes, int64_t n, const uint32_t * x, Ahead & ahead,
                              float * chains) {
    constexpr int64_t values = num_chains * F::values_per_unit, bytes = values * F::value_bytes;
    constexpr int64_t at_once = 4;               // vectors of a row
    constexpr int     H       = W <= 2 ? 1 : R;  // rows that share a load of x
    __m512            acc[R][W];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 8
        for (int j = 0; j < W; j++) {
            acc[r][j] = _mm512_setzero_ps();
        }
    }
    // One vector of H rows by all columns.
    const auto multiply = [&](int r, int64_t i, auto load) __attribute__((always_inline)) {
        __m512i w[H];
#pragma GCC unroll 4
        for (int h = 0; h < H; h++) {
            if (i * bytes % step_bytes == 0) {
                ahead.fetch();
            }
            w[h] = load(rows + (size_t) (r + h) * row_bytes + i * bytes);
        }
#pragma GCC unroll 8
        for (int j = 0; j < W; j++) {
            __m512i v = _mm512_loadu_si512(x + (i * W + j) * num_chains);
            if constexpr (H > 1) {
                asm("" : "+v"(v));  // loaded once
            }
#pragma GCC unroll 4
            for (int h = 0; h < H; h++) {
                acc[r + h][j] = F::mac(acc[r + h][j], w[h], v);
            }
        }
    };
    const auto advance = [&](int64_t vectors) __attribute__((always_inline)) {
        rows += vectors * bytes;
        x += vectors * W * num_chains;
        n -= vectors * values;
    };
    while (n >= at_once * values) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r += H) {
#pragma GCC unroll 4
            for (int i = 0; i < (int) at_once; i++) {
                multiply(r, i, [](const char * p) __attribute__((always_inline)) { return F::load(p); });
            }
        }
        advance(at_once);
    }
    while (n > 0) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r += H) {
            multiply(r, 0, [&](const char * p) __attribute__((always_inline)) {
                return n < values ? F::load_some(p, n) : F::load(p);
            });
        }
        advance(1);
    }
#pragma GCC unroll 8
    for (int j = 0; j < W; j++) {
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            _mm512_store_ps(chains + (j * tile_rows + r) * num_chains, acc[r][j]);
        }
    }
}

template <class F, int W>
void fused_strip(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * x, const TileOutput & out) {
    constexpr int     at_once = W == 1 ? 16 : W == 2 ? 8 : W <= 4 ? 4 : 2;
    alignas(64) float chains[W][tile_rows * num_chains];
    __m512            total[W];
    Ahead             ahead(rows, row_bytes);
    const int64_t     piece = piece_length(num_values, F::values_per_unit);
    for (int64_t k = 0; k < num_values; k += piece, x += piece / F::values_per_unit * W) {
        const int64_t n = num_values - k < piece ? num_values - k : piece;
        for (int r = 0; r < (int) tile_rows; r += at_once) {
            dot_rows<F, at_once, W>(rows + (size_t) r * row_bytes + k * F::value_bytes, row_bytes, n, x, ahead,
                                    chains[0] + r * num_chains);
        }
#pragma GCC unroll 8
        for (int j = 0; j < W; j++) {
            const __m512 sum = sum_of_chains(chains[j]);
            total[j]         = k == 0 ? sum : _mm512_add_ps(total[j], sum);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < W; j++) {
        _mm512_mask_storeu_ps(out.dst[j] + out.row, out.lanes, total[j]);
    }
}

// Units of one chain are together.
template <class F> void pack_strip(const char * rows, size_t row_bytes, int64_t k, int64_t n, char * strip) {
    // Sixteen short streams are too much for the hardware's prefetcher: the next strip's lines are asked for meanwhile.
    constexpr int64_t values    = step_bytes / F::value_bytes;
    const int64_t     per_chain = (n + values - 1) / values * F::units / num_chains;
    const size_t      tile      = tile_rows * row_bytes;
    each_step<F>(rows + k * F::value_bytes, row_bytes, n, [&](const char * p, size_t stride) {
        F::each_unit(p, stride, [&](int u, __m512i w) __attribute__((always_inline)) {
            if (u % (F::units / tile_rows) == 0) {
                _mm_prefetch(p + tile + (size_t) (u / (F::units / tile_rows)) * row_bytes, _MM_HINT_T1);
            }
            const int64_t at = u % num_chains * per_chain + u / num_chains;
            _mm512_store_si512(strip + at * (int64_t) unit_row_bytes, w);
        });
        strip += F::units / num_chains * unit_row_bytes;
    });
}

// S strips of 16 rows by W columns over one piece.
template <class F, int S, int W>
AXION_OWN_FRAME void tile_of_strips(const char * strips, int64_t num_units, const uint32_t * x, const TileOutput * out,
                                    bool first) {
    // Columns of large products are pages apart: their sums so far have all of the tile's time to come near.
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            __builtin_prefetch(out[s].dst[n] + out[s].row, 1, 3);
        }
    }
    alignas(64) float room[S * W * tile_rows] = {};
    float *           sums                    = room;
    asm("" : "+r"(sums) : : "memory");  // stays in memory: registers are the chains'
    const char * second = strips + (S - 1) * num_units * (int64_t) unit_row_bytes;
    for (int64_t c = 0; c < num_chains; c++) {
        __m512 acc[S][W];
#pragma GCC unroll 2
        for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                acc[s][n] = _mm512_setzero_ps();
            }
        }
        const uint32_t * v = x + c;
        for (int64_t u = 0; u < num_units; u += num_chains, strips += unit_row_bytes, second += unit_row_bytes) {
            const __m512i w0 = _mm512_load_si512(strips), w1 = _mm512_load_si512(second);
#pragma GCC unroll 8
            for (int n = 0; n < W; n++, v += num_chains) {
                const __m512i one = _mm512_set1_epi32((int) *v);
                acc[0][n]         = F::mac(acc[0][n], w0, one);
                if (S == 2) {
                    acc[S - 1][n] = F::mac(acc[S - 1][n], w1, one);
                }
            }
        }
#pragma GCC unroll 2
        for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                float * sum = sums + (s * W + n) * tile_rows;
                _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), acc[s][n]));
            }
        }
    }
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            float * dst = out[s].dst[n] + out[s].row;
            __m512  sum = _mm512_load_ps(sums + (s * W + n) * tile_rows);
            if (!first) {
                sum = _mm512_add_ps(_mm512_maskz_loadu_ps(out[s].lanes, dst), sum);
            }
            _mm512_mask_storeu_ps(dst, out[s].lanes, sum);
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
