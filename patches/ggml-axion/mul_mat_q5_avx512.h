// Q5_0 and Q5_1 for the AVX-512 tiles: nibbles and their fifth bits to bytes, sixteen rows at a time.
#pragma once

#include "mul_mat_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include "ggml-common.h"

namespace axion {

// Adds `value` to each byte of q whose bit in qh is set; bit 4 k + j of a row belongs to byte j of q[k].
inline void add_fifth_bits(__m512i q[8], __m512i qh, char value) {
    const __m512i add = _mm512_set1_epi8(value);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m128i pick = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
        const __m512i byte =
            _mm512_shuffle_epi8(qh, _mm512_broadcast_i32x4(_mm_add_epi8(pick, _mm_set1_epi8((char) i))));
        const __mmask64 low  = _mm512_test_epi8_mask(byte, _mm512_set1_epi32(0x08040201));
        const __mmask64 high = _mm512_test_epi8_mask(byte, _mm512_set1_epi32((int) 0x80402010));
        q[2 * i]             = _mm512_mask_add_epi8(q[2 * i], low, q[2 * i], add);
        q[2 * i + 1]         = _mm512_mask_add_epi8(q[2 * i + 1], high, q[2 * i + 1], add);
    }
}

struct Q5_0Weights {
    static constexpr int64_t block = QK5_0;
    static constexpr int64_t bytes = sizeof(block_q5_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static_assert(bytes == 22, "d, 32 bits, 32 nibbles");

    // Bytes are 8 * q, so that the zero point is 128: the scale is divided by 8.
    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked      u;
        const __m512i nibble = _mm512_set1_epi8(0x78);
        __m512i       t[4];
        load_transposed(p + 6, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = _mm512_and_si512(_mm512_slli_epi16(t[i], 3), nibble);
            u.q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(t[i], 1), nibble);
        }
        add_fifth_bits(u.q, load_dwords(p + 2, stride), (char) 0x80);
        u.scale = _mm512_mul_ps(low_halves_to_float(load_dwords(p, stride)), _mm512_set1_ps(1.0f / 8));
        sink(0, u);
    }
};

struct Q5_1Weights {
    static constexpr int64_t block = QK5_1;
    static constexpr int64_t bytes = sizeof(block_q5_1);
    static constexpr Kind    kind  = Kind::with_min;
    static_assert(bytes == 24, "d, m, 32 bits, 32 nibbles");

    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked      u;
        const __m512i nibble = _mm512_set1_epi8(0x0f);
        __m512i       t[4];
        load_transposed(p + 8, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = _mm512_and_si512(t[i], nibble);
            u.q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(t[i], 4), nibble);
        }
        add_fifth_bits(u.q, load_dwords(p + 4, stride), 0x10);
        const __m512i dm = load_dwords(p, stride);
        u.scale          = low_halves_to_float(dm);
        u.extra          = high_halves_to_float(dm);
        sink(0, u);
    }
};

}  // namespace axion

#endif
