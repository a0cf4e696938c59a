// Flash attention's tile for a q8_0 cache on AVX2. Its byte products saturate, so K and V are widened to int16 once per
// span, and pairs of them are multiplied. The weights need no digits then: 15 bits. Packed:
//   K        [span/8][dk/2][8 positions][2 values]
//   V        [dv/32][span/2][32 values][2 positions], the values in the order the unpacks leave
//   weights  [rows][scales][span]
#pragma once

#include "flash_attn_layout.h"

#if !defined(__AVX2__)
#error "needs AVX2"
#endif

namespace axion {
namespace fa {
namespace avx2 {

constexpr int   k_bias       = 0;
constexpr float weight_max   = 32767.0f;  // times 128 times 256 positions stays below 2^31
constexpr int   packed_bytes = 2;

inline __m256i load_wide(const char * p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *) p));
}

inline __m256i pair8(const void * p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return _mm256_set1_epi32(x);
}

// Eight rows of eight pairs, transposed.
inline void transpose_pairs(__m256i m[8]) {
    __m256i t[8];
    AXION_UNROLL
    for (int q = 0; q < 8; q += 4) {
        const __m256i ab0 = _mm256_unpacklo_epi32(m[q], m[q + 1]), ab2 = _mm256_unpackhi_epi32(m[q], m[q + 1]);
        const __m256i cd0 = _mm256_unpacklo_epi32(m[q + 2], m[q + 3]), cd2 = _mm256_unpackhi_epi32(m[q + 2], m[q + 3]);
        t[q]     = _mm256_unpacklo_epi64(ab0, cd0);
        t[q + 1] = _mm256_unpackhi_epi64(ab0, cd0);
        t[q + 2] = _mm256_unpacklo_epi64(ab2, cd2);
        t[q + 3] = _mm256_unpackhi_epi64(ab2, cd2);
    }
    AXION_UNROLL
    for (int c = 0; c < 4; c++) {
        m[c]     = _mm256_permute2x128_si256(t[c], t[c + 4], 0x20);
        m[c + 4] = _mm256_permute2x128_si256(t[c], t[c + 4], 0x31);
    }
}

inline void pack_k_q8(const char * const * rows, int n, int dk, void * packed, float * scales) {
    unpack_scales(rows, n, dk / quant_size, scales);
    for (int p = 0; p < (n + 15) / 16 * 16; p += 8) {
        char * out = (char *) packed + (size_t) p * dk * 2;
        for (int d = 0; d < dk; d += 16) {
            __m256i m[8];
            AXION_UNROLL
            for (int i = 0; i < 8; i++) {
                m[i] = load_wide(rows[p + i < n ? p + i : n - 1] + d / quant_size * quant_bytes + 2 + d % quant_size);
            }
            transpose_pairs(m);
            AXION_UNROLL
            for (int i = 0; i < 8; i++) {
                _mm256_store_si256((__m256i *) (out + (d / 2 + i) * 32), m[i]);
            }
        }
    }
}

// R rows at 16 positions.
template <int R>
AXION_OWN_FRAME void scores_q8_tile(const int16_t * q, const float * qs, int dk, const char * k, const float * ks,
                                    float * out) {
    const int num_scales = dk / quant_size;
    __m256    s[R][2];
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        s[r][0] = s[r][1] = _mm256_setzero_ps();
    }
    for (int b = 0; b < num_scales; b++, k += 16 * 32) {
        __m256i a[R][2];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            a[r][0] = a[r][1] = _mm256_setzero_si256();
        }
        AXION_UNROLL
        for (int j = 0; j < 16; j++) {
            const __m256i k0 = _mm256_load_si256((const __m256i *) (k + j * 32));
            const __m256i k1 = _mm256_load_si256((const __m256i *) (k + (size_t) dk * 16 + j * 32));
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                const __m256i x = pair8(q + (size_t) r * dk + b * quant_size + j * 2);
                a[r][0]         = _mm256_add_epi32(a[r][0], _mm256_madd_epi16(k0, x));
                a[r][1]         = _mm256_add_epi32(a[r][1], _mm256_madd_epi16(k1, x));
            }
        }
        AXION_UNROLL
        for (int c = 0; c < 2; c++) {
            const __m256 scale = _mm256_load_ps(ks + b * span_size + c * 8);
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                const __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(a[r][c]), scale);
                s[r][c]        = _mm256_fmadd_ps(f, _mm256_set1_ps(qs[r * num_scales + b]), s[r][c]);
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        _mm256_store_ps(out + r * span_size, s[r][0]);
        _mm256_store_ps(out + r * span_size + 8, s[r][1]);
    }
}

inline void scores_q8(const QueryQ8 & q, int n, const void * k, const float * ks, int begin, int end, float * out) {
    const int num_scales = q.dk / quant_size;
    int16_t   wide[group_rows * max_head];
    for (int i = 0; i < n * q.dk; i++) {
        wide[i] = q.values[i];
    }
    for (int r = 0, rows; r < n; r += rows) {
        rows            = n - r == 3 || n - r > 4 ? 3 : n - r >= 2 ? 2 : 1;
        const auto tile = rows == 3 ? scores_q8_tile<3> : rows == 2 ? scores_q8_tile<2> : scores_q8_tile<1>;
        for (int p = begin * 16; p < end * 16; p += 16) {
            tile(wide + r * q.dk, q.scales + r * num_scales, q.dk, (const char *) k + (size_t) p * q.dk * 2, ks + p,
                 out + r * span_size + p);
        }
    }
}

inline void pack_v_q8(const char * const * rows, int n, int dv, void * packed, float * scales) {
    unpack_scales(rows, n, dv / quant_size, scales);
    for (int p = 0; p < n; p += 2) {
        const char * a = rows[p] + 2;
        const char * c = rows[p + 1 < n ? p + 1 : p] + 2;
        for (int b = 0; b < dv / quant_size; b++, a += quant_bytes, c += quant_bytes) {
            __m256i * out = (__m256i *) ((char *) packed + ((size_t) b * (span_size / 2) + p / 2) * 128);
            AXION_UNROLL
            for (int h = 0; h < 2; h++) {
                const __m256i x = load_wide(a + h * 16), y = load_wide(c + h * 16);
                _mm256_store_si256(out + h * 2, _mm256_unpacklo_epi16(x, y));
                _mm256_store_si256(out + h * 2 + 1, _mm256_unpackhi_epi16(x, y));
            }
        }
    }
}

// Adding 2^23 rounds and leaves the integer in the low 15 bits.
inline void write_weights(const float * w, const float * scaled, const Weights & weights, int r, int b, int begin,
                          int end) {
    char *        to    = (char *) weights.data + (size_t) (r * weights.num_scales + b) * 2 * span_size;
    const __m256  magic = _mm256_set1_ps(0x1p23f);
    const __m256i mask  = _mm256_set1_epi32(0x7fff);
    const auto    at    = [&](int p) {
        const __m256 x = _mm256_fmadd_ps(_mm256_load_ps(w + p), _mm256_load_ps(scaled + p), magic);
        return _mm256_and_si256(_mm256_castps_si256(x), mask);
    };
    for (int p = begin * 16; p < end * 16; p += 16) {
        const __m256i both = _mm256_packus_epi32(at(p), at(p + 8));
        _mm256_store_si256((__m256i *) (to + 2 * p), _mm256_permute4x64_epi64(both, 0xd8));
    }
}

// R rows times the 32 values of a scale, over the pairs [begin, end) of positions.
template <int R>
AXION_OWN_FRAME void values_q8_tile(const uint8_t * weights, size_t row_bytes, const char * v, int begin, int end,
                                    const float * units, float * const * out) {
    __m256i a[R][4];
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        a[r][0] = a[r][1] = a[r][2] = a[r][3] = _mm256_setzero_si256();
    }
    for (int g = begin; g < end; g++) {
        __m256i x[R];
        AXION_UNROLL
        for (int r = 0; r < R; r++) {
            x[r] = pair8(weights + r * row_bytes + g * 4);
        }
        AXION_UNROLL
        for (int c = 0; c < 4; c++) {
            const __m256i y = _mm256_load_si256((const __m256i *) (v + g * 128 + c * 32));
            AXION_UNROLL
            for (int r = 0; r < R; r++) {
                a[r][c] = _mm256_add_epi32(a[r][c], _mm256_madd_epi16(x[r], y));
            }
        }
    }
    AXION_UNROLL
    for (int r = 0; r < R; r++) {
        const __m256 unit = _mm256_set1_ps(units[r]);
        AXION_UNROLL
        for (int c = 0; c < 4; c += 2) {
            const __m256 low  = _mm256_mul_ps(_mm256_cvtepi32_ps(a[r][c]), unit);
            const __m256 high = _mm256_mul_ps(_mm256_cvtepi32_ps(a[r][c + 1]), unit);
            _mm256_storeu_ps(out[r] + c * 8, _mm256_permute2f128_ps(low, high, 0x20));
            _mm256_storeu_ps(out[r] + c * 8 + 8, _mm256_permute2f128_ps(low, high, 0x31));
        }
    }
}

inline void values_q8(const Weights & weights, int n, const void * v, int dv, int begin, int end, const float * units,
                      float * const * out) {
    const size_t row_bytes = (size_t) weights.num_scales * 2 * span_size;
    for (int r = 0, rows; r < n; r += rows) {
        rows            = n - r == 3 || n - r > 4 ? 3 : n - r >= 2 ? 2 : 1;
        const auto tile = rows == 3 ? values_q8_tile<3> : rows == 2 ? values_q8_tile<2> : values_q8_tile<1>;
        for (int b = 0; b < dv / quant_size; b++) {
            float * to[3];
            for (int i = 0; i < rows; i++) {
                to[i] = out[r + i] + b * quant_size;
            }
            tile(weights.data + r * row_bytes + (size_t) b * 2 * span_size, row_bytes,
                 (const char *) v + (size_t) b * (span_size / 2) * 128, begin * 8, end * 8, units + b * most_rows + r,
                 to);
        }
    }
}

}  // namespace avx2
}  // namespace fa
}  // namespace axion
