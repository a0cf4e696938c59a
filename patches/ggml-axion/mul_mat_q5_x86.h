// Q5_0 and Q5_1 for the x86 tiles: nibbles and their fifth bits to bytes, a vector of rows at a time.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include "ggml-common.h"

namespace axion {

// Adds `value` to each byte of q whose bit in qh is set; bit 4 k + j of a row belongs to byte j of q[k].
AXION_INLINE void add_fifth_bits(Bytes q[8], Bytes qh, int value) {
    const Bytes add  = splat_byte(value);
    const Bytes low  = (Bytes) (Dwords{} + 0x08040201u);
    const Bytes high = (Bytes) (Dwords{} + 0x80402010u);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m128i pick = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
        const Bytes   byte = look_up(qh, splat_16(_mm_add_epi8(pick, _mm_set1_epi8((char) i))));
        q[2 * i]           = add_where(q[2 * i], byte, low, add);
        q[2 * i + 1]       = add_where(q[2 * i + 1], byte, high, add);
    }
}

struct Q5_0Weights {
    static constexpr int64_t block = QK5_0;
    static constexpr int64_t bytes = sizeof(block_q5_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static constexpr int     bits  = 5;
    static_assert(bytes == 22, "d, 32 bits, 32 nibbles");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        constexpr int raised = raised_by<bits>;
        Unpacked      u;
        const Bytes   nibble = splat_byte(0x0f << raised);
        Bytes         t[4];
        load_transposed(p + 6, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = shift_words(t[i], raised) & nibble;
            u.q[i + 4] = shift_words(t[i], raised - 4) & nibble;
        }
        add_fifth_bits(u.q, load_dwords(p + 2, stride), 0x10 << raised);
        u.scale = load_halves(p, stride) * splat_float(1.0f / (1 << raised));
        sink(0, u);
    }
};

struct Q5_1Weights {
    static constexpr int64_t block = QK5_1;
    static constexpr int64_t bytes = sizeof(block_q5_1);
    static constexpr Kind    kind  = Kind::with_min;
    static constexpr int     bits  = 5;
    static_assert(bytes == 24, "d, m, 32 bits, 32 nibbles");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked    u;
        const Bytes nibble = splat_byte(0x0f);
        Bytes       t[4];
        load_transposed(p + 8, stride, t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            u.q[i]     = t[i] & nibble;
            u.q[i + 4] = shift_words(t[i], -4) & nibble;
        }
        add_fifth_bits(u.q, load_dwords(p + 4, stride), 0x10);
        const Bytes dm = load_dwords(p, stride);
        u.scale        = low_halves_to_float(dm);
        u.extra        = high_halves_to_float(dm);
        sink(0, u);
    }
};

}  // namespace axion

#endif
