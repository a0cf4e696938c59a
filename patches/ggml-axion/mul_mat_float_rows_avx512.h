// How AVX-512 reads rows of F32, F16 and BF16 weights: along a row, one unit of each chain in the lanes; or a line of
// 16 rows, transposed in registers, so that the rows are in the lanes. And what it does with them.
#pragma once

#include "mul_mat_float_tile.h"

#if defined(__AVX512F__) && defined(__AVX512BW__)

#include "vecmath.h"

#define AXION_FLOAT_INLINE inline __attribute__((always_inline))

namespace axion {

constexpr int step_bytes = 64;  // of one row

template <int bytes> AXION_FLOAT_INLINE __m512i unpack_low(__m512i a, __m512i b) {
    return bytes == 2   ? _mm512_unpacklo_epi16(a, b)
           : bytes == 4 ? _mm512_unpacklo_epi32(a, b)
                        : _mm512_unpacklo_epi64(a, b);
}

template <int bytes> AXION_FLOAT_INLINE __m512i unpack_high(__m512i a, __m512i b) {
    return bytes == 2   ? _mm512_unpackhi_epi16(a, b)
           : bytes == 4 ? _mm512_unpackhi_epi32(a, b)
                        : _mm512_unpackhi_epi64(a, b);
}

// A step of a transposition in each quarter of the vectors: pieces of so many bytes of v[i] and v[i + apart] take
// turns.
template <int bytes, int apart, int N> AXION_FLOAT_INLINE void unpack_pairs(const __m512i (&v)[N], __m512i (&to)[N]) {
#pragma GCC                                                    unroll 16
    for (int i = 0; i < N; i += 2) {
        const int from = i / (2 * apart) * 2 * apart + i % (2 * apart) / 2;
        to[i]          = unpack_low<bytes>(v[from], v[from + apart]);
        to[i + 1]      = unpack_high<bytes>(v[from], v[from + apart]);
    }
}

// A line of each of N rows. Rows of most matrices are a multiple of 4 KiB apart, so that all lines want the same set of
// L1: what is not read at once would be evicted.
template <int N> AXION_FLOAT_INLINE void load_lines(const char * p, size_t stride, __m512i (&r)[N]) {
#pragma GCC                              unroll 16
    for (size_t i = 0; i < (size_t) N; i++) {
        r[i] = _mm512_loadu_si512(p + i * stride);
    }
}

// Sixteen dwords of each of 16 rows: t[i] has dword i of every row.
AXION_FLOAT_INLINE void transpose_lines(const char * p, size_t stride, __m512i (&t)[16]) {
    __m512i r[16], pair[16];
    load_lines(p, stride, r);
    unpack_pairs<4, 1>(r, pair);
    unpack_pairs<8, 2>(pair, r);  // r[i + j]: dword j of each quarter of rows i to i + 3
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

AXION_FLOAT_INLINE __m256i load_halves(const char * p, int64_t n) {
    return _mm512_castsi512_si256(_mm512_maskz_loadu_epi16((__mmask32) ((1u << n) - 1), p));
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
    // One unit of each chain; only the first n values exist.
    static AXION_FLOAT_INLINE __m512i load(const char * p) {
        return _mm512_loadu_si512(p);
    }
    static AXION_FLOAT_INLINE __m512i load_some(const char * p, int64_t n) {
        return _mm512_maskz_loadu_epi32((__mmask16) ((1u << n) - 1), p);
    }
    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(w), _mm512_castsi512_ps(x), acc);
    }
};

struct F16Avx512 : F32Avx512 {
    static constexpr int units = 32, value_bytes = 2;

    static AXION_FLOAT_INLINE __m512i widen(__m256i halves) {
        return _mm512_castps_si512(_mm512_cvtph_ps(halves));
    }
    static AXION_FLOAT_INLINE __m512i load(const char * p) {
        return widen(_mm256_loadu_si256((const __m256i *) p));
    }
    static AXION_FLOAT_INLINE __m512i load_some(const char * p, int64_t n) {
        return widen(load_halves(p, n));
    }

    // Of eight rows: t[j] has half j of each quarter of the lines.
    static AXION_FLOAT_INLINE void transpose_halves(const char * p, size_t stride, __m512i (&t)[8]) {
        __m512i r[8];
        load_lines(p, stride, r);
        unpack_pairs<2, 1>(r, t);
        unpack_pairs<4, 2>(t, r);
        unpack_pairs<8, 4>(r, t);
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
                sink(8 * quarter + j, widen(h));
            }
        }
    }
};

#if defined(__AVX512BF16__)

struct BF16Avx512 : F32Avx512 {
    static constexpr int values_per_unit = 2, value_bytes = 2;

    static AXION_FLOAT_INLINE __m512i load_some(const char * p, int64_t n) {
        return _mm512_maskz_loadu_epi16((__mmask32) ((1u << n) - 1), p);
    }
    static AXION_FLOAT_INLINE __m512 mac(__m512 acc, __m512i w, __m512i x) {
        return _mm512_dpbf16_ps(acc, (__m512bh) w, (__m512bh) x);
    }
};

#else

struct BF16Avx512 : F32Avx512 {
    static constexpr int units = 32, value_bytes = 2;

    static AXION_FLOAT_INLINE __m512i widen(__m256i v) {
        return _mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16);
    }
    static AXION_FLOAT_INLINE __m512i load(const char * p) {
        return widen(_mm256_loadu_si256((const __m256i *) p));
    }
    static AXION_FLOAT_INLINE __m512i load_some(const char * p, int64_t n) {
        return widen(load_halves(p, n));
    }
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

}  // namespace axion

#endif
