// Flash attention's tile for a q8_0 cache on AVX-512 with VNNI. Packed:
//   K        [dk/32][span/16][8][16 positions][4 values], raised by 128: vpdpbusd takes it unsigned
//   V        [dv/32][span/4][32 values][4 positions], the values in the order the unpacks leave
//   weights  [rows][scales][2][span] bytes: high and low digits, each a product of its own
#pragma once

#if !defined(__AVX512VNNI__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__)
#error "needs AVX-512 with VNNI"
#endif

#include "flash_attn_layout.h"
#include "vecmath.h"

#include <immintrin.h>

namespace axion {
namespace fa {
namespace avx512 {

constexpr int   k_bias       = 128;
constexpr float weight_max   = 65535.0f;
constexpr int   packed_bytes = 1;

inline __m512i dword16(const void * p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm512_set1_epi32(x);
}

// Adds u8 x s8 products, four to a lane. Not the intrinsic: GCC 12 then keeps whole tiles on the stack.
inline void dot4(__m512i & sum, __m512i unsigned_bytes, __m512i signed_bytes) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Four 32-byte rows next to four others, eight 4-byte columns: every column as eight dwords, rows in order.
inline void transpose_8x8(__m512i z[8]) {
    __m512i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i]     = _mm512_unpacklo_epi32(z[i], z[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(z[i], z[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i]     = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        z[i]     = _mm512_shuffle_i32x4(u[i], u[i + 4], 0x88);
        z[i + 4] = _mm512_shuffle_i32x4(u[i], u[i + 4], 0xdd);
    }
}

inline __m512i two_rows(const char * low, const char * high) {
    const __m256i l = _mm256_loadu_si256((const __m256i *) low);
    return _mm512_inserti64x4(_mm512_castsi256_si512(l), _mm256_loadu_si256((const __m256i *) high), 1);
}

inline void pack_k_q8(const char * const * rows, int n, int dk, void * packed, float * scales) {
    int8_t *      k8   = (int8_t *) packed;
    const __m512i bias = _mm512_set1_epi8((char) 0x80);
    unpack_scales(rows, n, dk / quant_size, scales);
    for (int g = 0; g * 16 < n; g++) {
        const char * last[16];
        for (int i = 0; i < 16 && g * 16 + 16 > n; i++) {
            last[i] = rows[g * 16 + i < n ? g * 16 + i : n - 1];
        }
        const char * const * r = g * 16 + 16 > n ? last : rows + g * 16;
        for (int b = 0; b < dk / quant_size; b++) {
            const size_t at = (size_t) b * quant_bytes + 2;
            __m512i      z[8];
            for (int i = 0; i < 4; i++) {
                z[i]     = two_rows(r[i] + at, r[i + 4] + at);
                z[i + 4] = two_rows(r[i + 8] + at, r[i + 12] + at);
            }
            transpose_8x8(z);
            int8_t * out = k8 + ((size_t) b * (span_size / 16) + g) * 8 * 64;
            for (int j = 0; j < 8; j++) {
                _mm512_store_si512(out + j * 64, _mm512_xor_si512(z[j], bias));
            }
        }
    }
}

// Scores of R rows at 16 * C positions from group g.
template <int R, int C>
AXION_OWN_FRAME void scores_q8_tile(const QueryQ8 & q, int row, const int8_t * k8, const float * k_scales, int g,
                                    float * out) {
    const int num_scales = q.dk / quant_size;
    __m512    s[R][C]    = {};
    for (int b = 0; b < num_scales; b++) {
        const int8_t * k = k8 + ((size_t) b * (span_size / 16) + g) * 8 * 64;
        const int8_t * x = q.values + (size_t) row * q.dk + b * quant_size;
        __m512i        acc[R][C];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            AXION_UNROLL
            for (int c = 0; c < C; c++) {
                acc[r][c] = _mm512_set1_epi32(q.starts[(row + r) * num_scales + b]);
            }
        }
        AXION_UNROLL
        for (int j = 0; j < 8; j++) {
            __m512i xs[R];
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                xs[r] = dword16(x + (size_t) r * q.dk + j * 4);
            }
            AXION_UNROLL
            for (int c = 0; c < C; c++) {
                const __m512i kv = _mm512_load_si512(k + (c * 8 + j) * 64);
                AXION_UNROLL
                for (int r = 0; r < R; r++) {
                    dot4(acc[r][c], kv, xs[r]);
                }
            }
        }
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            const __m512 ks = _mm512_load_ps(k_scales + b * span_size + (g + c) * 16);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                const __m512 qs = _mm512_set1_ps(q.scales[(row + r) * num_scales + b]);
                s[r][c]         = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[r][c]), ks), qs, s[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        AXION_UNROLL
        for (int c = 0; c < C; c++) {
            _mm512_store_ps(out + (row + r) * span_size + (g + c) * 16, s[r][c]);
        }
    }
}

template <int R>
inline void scores_q8_rows(const QueryQ8 & q, int row, const int8_t * k8, const float * ks, int g, int end,
                           float * out) {
    for (; g + 4 <= end; g += 4) {
        scores_q8_tile<R, 4>(q, row, k8, ks, g, out);
    }
    for (; g + 2 <= end; g += 2) {
        scores_q8_tile<R, 2>(q, row, k8, ks, g, out);
    }
    for (; g < end; g++) {
        scores_q8_tile<R, 1>(q, row, k8, ks, g, out);
    }
}

// out[r][p] for the rows of a group and the positions of the 16-groups [begin, end).
inline void scores_q8(const QueryQ8 & q, int n, const void * packed, const float * ks, int begin, int end,
                      float * out) {
    const int8_t * k8 = (const int8_t *) packed;
    int            r  = 0;
    for (; n - r == 3 || n - r > 4; r += 3) {
        scores_q8_rows<3>(q, r, k8, ks, begin, end, out);
    }
    for (; n - r >= 2; r += 2) {
        scores_q8_rows<2>(q, r, k8, ks, begin, end, out);
    }
    if (r < n) {
        scores_q8_rows<1>(q, r, k8, ks, begin, end, out);
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, void * packed, float * scales) {
    int8_t * v8 = (int8_t *) packed;
    unpack_scales(rows, n, dv / quant_size, scales);
    for (int p = 0; p < n; p += 4) {
        const char * r[4];
        for (int i = 0; i < 4; i++) {
            r[i] = rows[p + i < n ? p + i : n - 1] + 2;
        }
        for (int b = 0; b < dv / quant_size; b++) {
            __m256i x[4];
            for (int i = 0; i < 4; i++) {
                x[i] = _mm256_loadu_si256((const __m256i *) (r[i] + (size_t) b * quant_bytes));
            }
            const __m256i l0 = _mm256_unpacklo_epi8(x[0], x[1]), l1 = _mm256_unpacklo_epi8(x[2], x[3]);
            const __m256i h0 = _mm256_unpackhi_epi8(x[0], x[1]), h1 = _mm256_unpackhi_epi8(x[2], x[3]);
            __m256i *     out = (__m256i *) (v8 + ((size_t) b * (span_size / 4) + p / 4) * 128);
            _mm256_store_si256(out + 0, _mm256_unpacklo_epi16(l0, l1));
            _mm256_store_si256(out + 1, _mm256_unpackhi_epi16(l0, l1));
            _mm256_store_si256(out + 2, _mm256_unpacklo_epi16(h0, h1));
            _mm256_store_si256(out + 3, _mm256_unpackhi_epi16(h0, h1));
        }
    }
}

// Adding 2^23 rounds and leaves the integer in the low 16 bits.
inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    uint8_t * high = weights.data + (size_t) (r * weights.num_scales + b) * 2 * span_size;
    for (int p = begin * 16; p < end * 16; p += 16) {
        const __m512  x = _mm512_fmadd_ps(_mm512_load_ps(w + p), _mm512_load_ps(scaled + p), _mm512_set1_ps(0x1p23f));
        const __m512i bits = _mm512_castps_si512(x);
        _mm_store_si128((__m128i *) (high + p), _mm512_cvtepi32_epi8(_mm512_srli_epi32(bits, 8)));
        _mm_store_si128((__m128i *) (high + span_size + p), _mm512_cvtepi32_epi8(bits));
    }
}

// The 32 values of scale b for rows [row, row + R), over the groups [begin, end) of four positions.
template <int R>
AXION_OWN_FRAME void values_q8_tile(const Weights & w, int row, const int8_t * v8, int b, int begin, int end,
                                    const float * units, float * const * out) {
    const int8_t *  v = v8 + (size_t) b * (span_size / 4) * 128;
    const uint8_t * p[R];
    __m512i         high[R][2] = {}, low[R][2] = {};
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        p[r] = w.data + (size_t) ((row + r) * w.num_scales + b) * 2 * span_size;
    }
    for (int g = begin; g < end; g++) {
        const __m512i v0 = _mm512_load_si512(v + g * 128), v1 = _mm512_load_si512(v + g * 128 + 64);
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            const __m512i h = dword16(p[r] + g * 4), l = dword16(p[r] + span_size + g * 4);
            dot4(high[r][0], h, v0);
            dot4(high[r][1], h, v1);
            dot4(low[r][0], l, v0);
            dot4(low[r][1], l, v1);
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        __m512 f[2];
        AXION_UNROLL
        for (int i = 0; i < 2; i++) {
            const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(high[r][i], 8), low[r][i]);
            f[i]              = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(units[b * most_rows + row + r]));
        }
        _mm512_storeu_ps(out[row + r] + b * quant_size, _mm512_shuffle_f32x4(f[0], f[1], 0x88));
        _mm512_storeu_ps(out[row + r] + b * quant_size + 16, _mm512_shuffle_f32x4(f[0], f[1], 0xdd));
    }
}

template <int R>
inline void values_q8_rows(const Weights & w, const void * v, int begin, int end, const float * units,
                           float * const * out) {
    for (int b = 0; b < w.num_scales; b++) {
        values_q8_tile<R>(w, 0, (const int8_t *) v, b, begin * 4, end * 4, units, out);
    }
}

// Row r of n: the weights times V.
inline void values_q8(const Weights & w, int n, const void * v, int, int begin, int end, const float * units,
                      float * const * out) {
    switch (n) {
    case 6:
        return values_q8_rows<6>(w, v, begin, end, units, out);
    case 5:
        return values_q8_rows<5>(w, v, begin, end, units, out);
    case 4:
        return values_q8_rows<4>(w, v, begin, end, units, out);
    case 3:
        return values_q8_rows<3>(w, v, begin, end, units, out);
    case 2:
        return values_q8_rows<2>(w, v, begin, end, units, out);
    default:
        return values_q8_rows<1>(w, v, begin, end, units, out);
    }
}

}  // namespace avx512
}  // namespace fa
}  // namespace axion
