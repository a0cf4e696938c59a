// Q4_0, Q4_1 and IQ4_NL for the x86 tiles: nibbles to bytes, a vector of rows at a time.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include "ggml-common.h"

namespace axion {

struct Q4_0Weights {
    static constexpr int64_t block = QK4_0;
    static constexpr int64_t bytes = sizeof(block_q4_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static constexpr int     bits  = 4;
    static_assert(bytes == 18, "d, 32 nibbles");

    // Raised, a nibble lies in the high half of its byte: 16 * q.
    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        constexpr int raised = raised_by<bits>;
        Unpacked      u;
        const Bytes   nibble = splat_byte(0x0f << raised);
        Bytes         t[4];
        load_transposed(p + 2, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = shift_words(t[i], raised) & nibble;
            u.q[i + 4] = shift_words(t[i], raised - 4) & nibble;
        }
        u.scale = load_halves(p, stride) * splat_float(1.0f / (1 << raised));
        sink(0, u);
    }
};

struct Q4_1Weights {
    static constexpr int64_t block = QK4_1;
    static constexpr int64_t bytes = sizeof(block_q4_1);
    static constexpr Kind    kind  = Kind::with_min;
    static constexpr int     bits  = 4;
    static_assert(bytes == 20, "d, m, 32 nibbles");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked    u;
        const Bytes low = splat_byte(0x0f);
        Bytes       t[4];
        load_transposed(p + 4, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = t[i] & low;
            u.q[i + 4] = shift_words(t[i], -4) & low;
        }
        const Bytes dm = load_dwords(p, stride);
        u.scale        = low_halves_to_float(dm);
        u.extra        = high_halves_to_float(dm);
        sink(0, u);
    }
};

struct Iq4NlWeights {
    static constexpr int64_t block = QK4_NL;
    static constexpr int64_t bytes = sizeof(block_iq4_nl);
    static constexpr Kind    kind  = Kind::zero_point;
    static constexpr int     bits  = 8;
    static_assert(bytes == 18, "d, 32 nibbles");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        // kvalues_iq4nl; with VNNI + 128
        constexpr char zero   = has_vnni ? (char) 128 : 0;
        const Bytes    values = splat_16(
            _mm_xor_si128(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
                          _mm_set1_epi8(zero)));
        const Bytes low = splat_byte(0x0f);
        Unpacked    u;
        Bytes       t[4];
        load_transposed(p + 2, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = look_up(values, t[i] & low);
            u.q[i + 4] = look_up(values, shift_words(t[i], -4) & low);
        }
        u.scale = load_halves(p, stride);
        sink(0, u);
    }
};

}  // namespace axion

#endif
