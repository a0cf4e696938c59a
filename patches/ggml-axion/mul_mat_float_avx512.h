// AVX-512 strips of floating-point weights: 16 rows in the lanes, one accumulator per column and strip.
//
// Straight from the rows, a line of each is transposed in registers: four shuffles for 64 bytes of weights, which is
// less than memory takes to bring them. Panels hold strip[unit][row].
#pragma once

#include "mul_mat_float_tile.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

#include "vecmath.h"

#define AXION_FLOAT_INLINE inline __attribute__((always_inline))

namespace axion {

constexpr int     step_bytes        = 64;     // of one row
constexpr int64_t float_ahead_bytes = 16384;  // prefetched at least this far ahead

// Sixteen dwords of each of 16 rows, a whole line at a time: t[i] has dword i of every row. Rows of most matrices are a
// multiple of 4 KiB apart, so that all 16 lines want the same set of L1: what is not read at once would be evicted.
AXION_FLOAT_INLINE void transpose_lines(const char * p, size_t stride, __m512i t[16]) {
    __m512i r[16], pair[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++) {
        r[i] = _mm512_loadu_si512(p + i * stride);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        pair[i]     = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        pair[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {  // r[i + j]: dword j of each quarter of rows i to i + 3
        r[i]     = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const __m512i a = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x44), b = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xee);
        const __m512i c = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x44);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xee);
        t[j]            = _mm512_shuffle_i32x4(a, c, 0x88);
        t[4 + j]        = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[8 + j]        = _mm512_shuffle_i32x4(b, d, 0x88);
        t[12 + j]       = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

// A format: the units that one line of each row makes, given to sink(unit, 16 rows) in order, and their arithmetic.
struct F32Avx512 {
    static constexpr int values_per_unit = 1, units = 16, value_bytes = 4;

    template <class Sink> static AXION_FLOAT_INLINE void each_unit(const char * p, size_t stride, Sink sink) {
        __m512i t[16];
        transpose_lines(p, stride, t);
#pragma GCC unroll 16
        for (int u = 0; u < units; u++) {
            sink(u, t[u]);
        }
    }
    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), acc);
    }
};

struct F16Avx512 : F32Avx512 {
    static constexpr int units = 32, value_bytes = 2;

    // Of eight rows: t[j] has half j of each quarter of the lines.
    static AXION_FLOAT_INLINE void transpose_halves(const char * p, size_t stride, __m512i t[8]) {
        __m512i r[8], pair[8];
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            r[i] = _mm512_loadu_si512(p + i * stride);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            pair[i]     = _mm512_unpacklo_epi16(r[i], r[i + 1]);
            pair[i + 1] = _mm512_unpackhi_epi16(r[i], r[i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 8; i += 4) {
            r[i]     = _mm512_unpacklo_epi32(pair[i], pair[i + 2]);
            r[i + 1] = _mm512_unpackhi_epi32(pair[i], pair[i + 2]);
            r[i + 2] = _mm512_unpacklo_epi32(pair[i + 1], pair[i + 3]);
            r[i + 3] = _mm512_unpackhi_epi32(pair[i + 1], pair[i + 3]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            t[2 * i]     = _mm512_unpacklo_epi64(r[i], r[4 + i]);
            t[2 * i + 1] = _mm512_unpackhi_epi64(r[i], r[4 + i]);
        }
    }
    template <class Sink> static AXION_FLOAT_INLINE void each_unit(const char * p, size_t stride, Sink sink) {
        const __m512i low  = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        const __m512i high = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
        __m512i       a[8], b[8];
        transpose_halves(p, stride, a);
        transpose_halves(p + 8 * stride, stride, b);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            const __m512i both = _mm512_permutex2var_epi64(a[j], low, b[j]);
            b[j]               = _mm512_permutex2var_epi64(a[j], high, b[j]);
            a[j]               = both;
        }
#pragma GCC unroll 4
        for (int quarter = 0; quarter < 4; quarter++) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
                const __m512i v = quarter < 2 ? a[j] : b[j];
                const __m256i h = quarter % 2 == 0 ? _mm512_castsi512_si256(v) : _mm512_extracti64x4_epi64(v, 1);
                sink(8 * quarter + j, _mm512_castps_si512(_mm512_cvtph_ps(h)));
            }
        }
    }
};

#if defined(__AVX512BF16__)

struct BF16Avx512 : F32Avx512 {
    static constexpr int values_per_unit = 2, value_bytes = 2;

    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, (__m512bh) w, (__m512bh) x);
    }
};

#else

struct BF16Avx512 : F32Avx512 {
    static constexpr int units = 32, value_bytes = 2;

    template <class Sink> static AXION_FLOAT_INLINE void each_unit(const char * p, size_t stride, Sink sink) {
        __m512i pair[16];
        transpose_lines(p, stride, pair);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            sink(2 * i, _mm512_slli_epi32(pair[i], 16));
            sink(2 * i + 1, _mm512_and_si512(pair[i], _mm512_set1_epi32((int) 0xffff0000)));
        }
    }
};

#endif

// The last bytes of 16 rows, filled up with zeros to a step.
struct RowTails {
    alignas(64) char bytes[tile_rows][step_bytes] = {};

    RowTails(const char * rows, size_t row_bytes, size_t n) {
        for (size_t r = 0; r < (size_t) tile_rows; r++) {
            memcpy(bytes[r], rows + r * row_bytes, n);
        }
    }
};

// Calls step(rows, stride) for every line of n values.
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

// Where lines of 16 rows lie on their way through L1. The rows of most matrices are a multiple of 4 KiB apart, so that
// the lines at one place of all of them want one set of L1 and its eight ways: neither a prefetch nor a second look
// finds them there. So each is read once, in runs along its row and a chunk ahead of the arithmetic, and put side by
// side.
struct Stage {
    static constexpr int    chunk  = 4;  // lines of a row
    static constexpr size_t stride = (chunk + 1) * step_bytes;
    alignas(64) char bytes[2][tile_rows * stride];

    // The last chunk begins early enough to be whole.
    static AXION_FLOAT_INLINE int64_t first_line(int64_t c, int64_t num_lines) {
        return (c + 1) * chunk <= num_lines ? c * chunk : num_lines - chunk;
    }
    // Line i of four rows.
    static AXION_FLOAT_INLINE void copy(char * to, const char * from, size_t row_bytes, int i) {
        const size_t row = (size_t) i / chunk, at = (size_t) i % chunk * step_bytes;
        _mm512_store_si512(to + row * stride + at, _mm512_loadu_si512(from + row * row_bytes + at));
    }
};

template <class F, int W>
void fused_strip(const char * rows, size_t row_bytes, int64_t num_values, const uint32_t * x, const TileOutput & out) {
    constexpr int64_t values = step_bytes / F::value_bytes;
    const size_t      tile = tile_rows * row_bytes, four_rows = tile_rows / Stage::chunk * row_bytes;
    const int64_t     num_lines = num_values / values;
    const char *      ahead     = rows + tile * (1 + float_ahead_bytes / tile);
    Stage             stage;
    for (int i = 0; i < Stage::chunk && num_lines >= Stage::chunk; i++) {
        for (int slot = 0; slot < (int) tile_rows; slot++) {
            Stage::copy(stage.bytes[0] + i * Stage::chunk * Stage::stride, rows + i * four_rows, row_bytes, slot);
        }
    }
    __m512  total[W];
    int64_t line = 0;
    for (int64_t k = 0; k < num_values; k += piece_values) {
        __m512 acc[W];
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            acc[n] = _mm512_setzero_ps();
        }
        const auto multiply = [&](int u, __m512i w) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int n = 0; n < W; n++) {
                acc[n] = F::mac(acc[n], w, _mm512_set1_epi32((int) x[u * W + n]));
            }
        };
        const int64_t end  = k + piece_values < num_values ? k + piece_values : num_values;
        int64_t       left = end - k;
        for (; left >= values && num_lines >= Stage::chunk; left -= values, x += F::units * W, line++) {
            const int64_t c = line / Stage::chunk, turn = line % Stage::chunk;
            const char *  from = rows + turn * four_rows + Stage::first_line(c + 1, num_lines) * step_bytes;
            char *        to   = stage.bytes[(c + 1) % 2] + turn * Stage::chunk * Stage::stride;
            const char *  now  = stage.bytes[c % 2] + (line - Stage::first_line(c, num_lines)) * step_bytes;
            F::each_unit(now, Stage::stride, [&](int u, __m512i w) __attribute__((always_inline)) {
                if (u % (F::units / tile_rows) == 0) {
                    // Sixteen short streams are too much for the hardware's prefetcher; the strips to come are one.
                    _mm_prefetch(ahead, _MM_HINT_T1);
                    ahead += step_bytes;
                    Stage::copy(to, from, row_bytes, u / (F::units / (int) tile_rows));
                }
                multiply(u, w);
            });
        }
        for (; left > 0; left -= values, x += F::units * W) {
            const RowTails tails(rows + (end - left) * F::value_bytes, row_bytes,
                                 (size_t) ((left < values ? left : values) * F::value_bytes));
            __m512i        units[F::units];
            F::each_unit(tails.bytes[0], step_bytes,
                         [&](int u, __m512i w) __attribute__((always_inline)) { units[u] = w; });
            for (int u = 0; u < F::units; u++) {
                multiply(u, units[u]);
            }
        }
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
    // Sixteen short streams again: the next strip's lines are asked for meanwhile.
    const size_t tile = tile_rows * row_bytes;
    each_step<F>(rows + k * F::value_bytes, row_bytes, n, [&](const char * p, size_t stride) {
        F::each_unit(p, stride, [&](int u, __m512i w) __attribute__((always_inline)) {
            if (u % (F::units / tile_rows) == 0) {
                _mm_prefetch(p + tile + (size_t) (u / (F::units / tile_rows)) * row_bytes, _MM_HINT_T1);
            }
            _mm512_store_si512(strip + u * (int) unit_row_bytes, w);
        });
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
    // Columns of large products are pages apart: their sums so far have all of the tile's time to come near.
#pragma GCC unroll 2
    for (int s = 0; s < S; s++) {
#pragma GCC unroll 8
        for (int n = 0; n < W; n++) {
            __builtin_prefetch(out[s].dst[n] + out[s].row, 1, 3);
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
