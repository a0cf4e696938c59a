// Q4_0, Q4_1 and IQ4_NL for the AVX-512 tiles: nibbles to bytes, sixteen rows at a time.
#pragma once

#include "mul_mat_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include "ggml-common.h"

namespace axion {

struct Q4_0Weights {
    static constexpr int64_t block = QK4_0;
    static constexpr int64_t bytes = sizeof(block_q4_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static_assert(bytes == 18, "d, 32 nibbles");

    // A nibble kept in the high half of its byte is 16 * q, and its zero point 128: the scale is divided by 16.
    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked      u;
        const __m512i high = _mm512_set1_epi8((char) 0xf0);
        __m512i       t[4];
        load_transposed(p + 2, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = _mm512_and_si512(_mm512_slli_epi16(t[i], 4), high);
            u.q[i + 4] = _mm512_and_si512(t[i], high);
        }
        u.scale = _mm512_mul_ps(low_halves_to_float(load_dwords(p, stride)), _mm512_set1_ps(1.0f / 16));
        sink(0, u);
    }
};

struct Q4_1Weights {
    static constexpr int64_t block = QK4_1;
    static constexpr int64_t bytes = sizeof(block_q4_1);
    static constexpr Kind    kind  = Kind::with_min;
    static_assert(bytes == 20, "d, m, 32 nibbles");

    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked      u;
        const __m512i low = _mm512_set1_epi8(0x0f);
        __m512i       t[4];
        load_transposed(p + 4, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = _mm512_and_si512(t[i], low);
            u.q[i + 4] = _mm512_and_si512(_mm512_srli_epi16(t[i], 4), low);
        }
        const __m512i dm = load_dwords(p, stride);
        u.scale          = low_halves_to_float(dm);
        u.extra          = high_halves_to_float(dm);
        sink(0, u);
    }
};

struct Iq4NlWeights {
    static constexpr int64_t block = QK4_NL;
    static constexpr int64_t bytes = sizeof(block_iq4_nl);
    static constexpr Kind    kind  = Kind::zero_point;
    static_assert(bytes == 18, "d, 32 nibbles");

    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        // kvalues_iq4nl + 128
        const __m512i values =
            _mm512_broadcast_i32x4(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char) 129, (char) 141, (char) 153,
                                                 (char) 166, (char) 181, (char) 197, (char) 217, (char) 241));
        const __m512i low = _mm512_set1_epi8(0x0f);
        Unpacked      u;
        __m512i       t[4];
        load_transposed(p + 2, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = _mm512_shuffle_epi8(values, _mm512_and_si512(t[i], low));
            u.q[i + 4] = _mm512_shuffle_epi8(values, _mm512_and_si512(_mm512_srli_epi16(t[i], 4), low));
        }
        u.scale = low_halves_to_float(load_dwords(p, stride));
        sink(0, u);
    }
};

}  // namespace axion

#endif
