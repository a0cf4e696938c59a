// Q4_K, Q5_K and Q6_K for the x86 tiles: a super-block of 256 of a vector of rows becomes eight blocks of 32.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include "ggml-common.h"

namespace axion {

// The first 16 bytes of a Q4_K or Q5_K super-block: eight scales and mins of six bits, each times an FP16.
struct KScales {
    Bytes  scale[2], min[2];  // byte i % 4 of [i / 4]
    Floats d, dmin;

    AXION_INLINE KScales(const char * p, size_t stride) {
        Bytes t[4];
        load_transposed(p, stride, t);
        const Bytes six = splat_byte(0x3f), four = splat_byte(0x0f), two = splat_byte(0x30);
        scale[0] = t[1] & six;
        min[0]   = t[2] & six;
        scale[1] = (t[3] & four) | (shift_words(t[1], -2) & two);
        min[1]   = (shift_words(t[3], -4) & four) | (shift_words(t[2], -2) & two);
        d        = low_halves_to_float(t[0]);
        dmin     = Floats{} - high_halves_to_float(t[0]);
    }

    static AXION_INLINE Floats times(Floats factor, const Bytes v[2], int i) {
        return factor * byte_to_float(v[i / 4], i % 4);
    }
};

struct Q4_KWeights {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(block_q4_K);
    static constexpr Kind    kind  = Kind::with_min;
    static constexpr int     bits  = 4;
    static_assert(bytes == 144, "d, dmin, 12 bytes of scales and mins, 256 nibbles");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        const KScales scales(p, stride);
        const Bytes   nibble = splat_byte(0x0f);
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            Bytes t[8];
            load_transposed(p + 16 + 16 * i, stride, t);
            load_transposed(p + 32 + 16 * i, stride, t + 4);
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                Unpacked u;
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    u.q[k] = shift_words(t[k], -4 * half) & nibble;
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
    static constexpr int     bits  = 5;
    static_assert(bytes == 176, "d, dmin, 12 bytes of scales and mins, 256 bits, 256 nibbles");

    // Bit i of byte l of the 256 belongs to value l of block i.
    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        const KScales scales(p, stride);
        const Bytes   nibble = splat_byte(0x0f), fifth = splat_byte(0x10);
        Bytes         h[8];
        load_transposed(p + 16, stride, h);
        load_transposed(p + 32, stride, h + 4);
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            Bytes t[8];
            load_transposed(p + 48 + 16 * i, stride, t);
            load_transposed(p + 64 + 16 * i, stride, t + 4);
#pragma GCC unroll 2
            for (int j = i; j < i + 2; j++) {
                Unpacked u;
#pragma GCC unroll 8
                for (int k = 0; k < 8; k++) {
                    u.q[k] = (shift_words(t[k], j % 2 * -4) & nibble) | (shift_words(h[k], 4 - j) & fifth);
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
    static constexpr int     bits  = 6;
    static_assert(bytes == 210, "256 nibbles, 256 pairs of bits, 16 scales, d");

    // Raised, bytes are 4 * q.
    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        constexpr int raised = raised_by<bits>;
        const Bytes   nibble = splat_byte(0x0f << raised), pair = splat_byte(0x30 << raised);
        const Floats  d = load_halves(p + 208, stride) * splat_float(1.0f / (1 << raised));
        Bytes         scales[4];
        load_transposed(p + 192, stride, scales);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            Bytes t[2][8], h[8];
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
                    u.q[k] = (shift_words(t[i % 2][k], i < 2 ? raised : raised - 4) & nibble) |
                             (shift_words(h[k], 4 + raised - 2 * i) & pair);
                }
                const int at = 8 * half + 2 * i;
                u.scale      = d * signed_byte_to_float(scales[at / 4], at % 4);
                u.extra      = d * signed_byte_to_float(scales[at / 4], at % 4 + 1);
                sink(4 * half + i, u);
            }
        }
    }
};

}  // namespace axion

#endif
