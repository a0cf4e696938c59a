// Q4_K, Q5_K and Q6_K for the AVX-512 tiles: a super-block of 256 of sixteen rows becomes eight blocks of 32.
#pragma once

#include "mul_mat_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include "ggml-common.h"

namespace axion {

// The first 16 bytes of a Q4_K or Q5_K super-block: eight scales and mins of six bits, each times an FP16.
struct KScales {
    __m512i scale[2], min[2];  // byte i % 4 of [i / 4]
    __m512  d, dmin;

    KScales(const char * p, size_t stride) {
        __m512i t[4];
        load_transposed(p, stride, t);
        const __m512i six = _mm512_set1_epi8(0x3f), four = _mm512_set1_epi8(0x0f), two = _mm512_set1_epi8(0x30);
        scale[0] = _mm512_and_si512(t[1], six);
        min[0]   = _mm512_and_si512(t[2], six);
        scale[1] = _mm512_or_si512(_mm512_and_si512(t[3], four), _mm512_and_si512(_mm512_srli_epi32(t[1], 2), two));
        min[1]   = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(t[3], 4), four),
                                   _mm512_and_si512(_mm512_srli_epi32(t[2], 2), two));
        d        = low_halves_to_float(t[0]);
        dmin     = _mm512_sub_ps(_mm512_setzero_ps(), high_halves_to_float(t[0]));
    }

    static __m512 times(__m512 factor, const __m512i v[2], int i) {
        const __m512i byte = _mm512_and_si512(_mm512_srli_epi32(v[i / 4], 8 * (i % 4)), _mm512_set1_epi32(0xff));
        return _mm512_mul_ps(factor, _mm512_cvtepi32_ps(byte));
    }
};

struct Q4_KWeights {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(block_q4_K);
    static constexpr Kind    kind  = Kind::with_min;
    static_assert(bytes == 144, "d, dmin, 12 bytes of scales and mins, 256 nibbles");

    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        const KScales scales(p, stride);
        const __m512i nibble = _mm512_set1_epi8(0x0f);
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            __m512i t[8];
            load_transposed(p + 16 + 16 * i, stride, t);
            load_transposed(p + 32 + 16 * i, stride, t + 4);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                Unpacked u;
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    u.q[k] = _mm512_and_si512(half ? _mm512_srli_epi16(t[k], 4) : t[k], nibble);
                }
                u.scale = KScales::times(scales.d, scales.scale, i + half);
                u.extra = KScales::times(scales.dmin, scales.min, i + half);
                sink(i + half, u);
            }
        }
    }
};

struct Q5_KWeights {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(block_q5_K);
    static constexpr Kind    kind  = Kind::with_min;
    static_assert(bytes == 176, "d, dmin, 12 bytes of scales and mins, 256 bits, 256 nibbles");

    // Bit i of byte l of the 256 belongs to value l of block i.
    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        const KScales scales(p, stride);
        const __m512i nibble = _mm512_set1_epi8(0x0f), fifth = _mm512_set1_epi8(0x10);
        __m512i       h[8];
        load_transposed(p + 16, stride, h);
        load_transposed(p + 32, stride, h + 4);
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            __m512i t[8];
            load_transposed(p + 48 + 16 * i, stride, t);
            load_transposed(p + 64 + 16 * i, stride, t + 4);
#pragma GCC unroll 2
            for (int j = i; j < i + 2; j++) {
                Unpacked u;
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    const __m512i low  = _mm512_and_si512(j % 2 ? _mm512_srli_epi16(t[k], 4) : t[k], nibble);
                    const __m512i high = j < 4 ? _mm512_slli_epi16(h[k], 4 - j) : _mm512_srli_epi16(h[k], j - 4);
                    u.q[k]             = _mm512_or_si512(low, _mm512_and_si512(high, fifth));
                }
                u.scale = KScales::times(scales.d, scales.scale, j);
                u.extra = KScales::times(scales.dmin, scales.min, j);
                sink(j, u);
            }
        }
    }
};

struct Q6_KWeights {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(block_q6_K);
    static constexpr Kind    kind  = Kind::two_scales;
    static_assert(bytes == 210, "256 nibbles, 256 pairs of bits, 16 scales, d");

    // Bytes are 4 * q, so that the zero point is 128: the scale is divided by 4.
    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        const __m512i nibble = _mm512_set1_epi8(0x3c), pair = _mm512_set1_epi8((char) 0xc0);
        const __m512  d = _mm512_mul_ps(high_halves_to_float(load_dwords(p + 206, stride)), _mm512_set1_ps(0.25f));
        __m512i       scales[4];
        load_transposed(p + 192, stride, scales);
        const auto scale = [&](int i) {
            const __m512i byte = _mm512_srai_epi32(_mm512_slli_epi32(scales[i / 4], 24 - 8 * (i % 4)), 24);
            return _mm512_mul_ps(d, _mm512_cvtepi32_ps(byte));
        };
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            __m512i t[2][8], h[8];
#pragma GCC unroll 2
            for (int k = 0; k < 2; k++) {
                load_transposed(p + 64 * half + 16 * k, stride, t[0] + 4 * k);
                load_transposed(p + 64 * half + 32 + 16 * k, stride, t[1] + 4 * k);
                load_transposed(p + 128 + 32 * half + 16 * k, stride, h + 4 * k);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                Unpacked u;
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    const __m512i four = i < 2 ? _mm512_slli_epi16(t[i % 2][k], 2) : _mm512_srli_epi16(t[i % 2][k], 2);
                    const __m512i two  = _mm512_slli_epi16(h[k], 6 - 2 * i);
                    u.q[k]             = _mm512_or_si512(_mm512_and_si512(four, nibble), _mm512_and_si512(two, pair));
                }
                u.scale = scale(8 * half + 2 * i);
                u.extra = scale(8 * half + 2 * i + 1);
                sink(4 * half + i, u);
            }
        }
    }
};

}  // namespace axion

#endif
