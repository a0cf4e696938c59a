// Q4_K, Q5_K and Q6_K for the NEON tiles: a super-block of 256 of sixteen rows becomes eight blocks of 32.
#pragma once

#include "mul_mat_formats_neon.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

namespace axion {

// Scales and mins of one row: eight of each in six bits, times an FP16.
AXION_INLINE void unpack_k_scales_neon(const char * p, NeonBlock * out, int row) {
    const float     d = half_float(p), dmin = -half_float(p + 2);
    const uint8_t * s = (const uint8_t *) p + 4;
    for (int i = 0; i < 4; i++) {
        out[i].scale[row]     = d * (float) (s[i] & 63);
        out[i].extra[row]     = dmin * (float) (s[i + 4] & 63);
        out[i + 4].scale[row] = d * (float) ((s[i + 8] & 15) | s[i] >> 6 << 4);
        out[i + 4].extra[row] = dmin * (float) (s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
    }
}

// Nibbles of blocks 2 j and 2 j + 1 are the halves of the same 32 bytes; bit i of byte l of the fifth bits is of value
// l of block i.
template <class Block, bool has_fifth> struct KNibblesNeon {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(Block);
    static constexpr Kind    kind  = Kind::with_min;
    static constexpr int     first = has_fifth ? 48 : 16;
    static_assert(bytes == first + 128, "d, dmin, 12 bytes of scales and mins, fifth bits, 256 nibbles");

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t low = vdupq_n_u8(15), fifth = vdupq_n_u8(16);
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            unpack_k_scales_neon(p, out, 2 * i);
            unpack_k_scales_neon(p + stride, out, 2 * i + 1);
            for (int k = 0; k < 4; k += 2) {
                const Halves h = has_fifth ? load_two_rows(p + 16 + 8 * k, stride) : Halves();
                for (int b = 0; b < 8; b += 2) {
                    const Halves t = load_two_rows(p + first + 16 * b + 8 * k, stride);
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++) {
                        uint8x16_t even = vandq_u8(t.v[j], low), odd = vshrq_n_u8(t.v[j], 4);
                        if (has_fifth) {
                            const int8x16_t to_even = vdupq_n_s8((int8_t) (4 - b)),
                                            to_odd  = vdupq_n_s8((int8_t) (3 - b));
                            even                    = vorrq_u8(even, vandq_u8(vshlq_u8(h.v[j], to_even), fifth));
                            odd                     = vorrq_u8(odd, vandq_u8(vshlq_u8(h.v[j], to_odd), fifth));
                        }
                        store_eights(out[b], k + j, i, even);
                        store_eights(out[b + 1], k + j, i, odd);
                    }
                }
            }
        }
    }
};

using Q4_KWeights = KNibblesNeon<block_q4_K, false>;
using Q5_KWeights = KNibblesNeon<block_q5_K, true>;

struct Q6_KWeights {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(block_q6_K);
    static constexpr Kind    kind  = Kind::two_scales;
    static_assert(bytes == 210, "256 nibbles, 256 pairs of bits, 16 scales, d");

    static void unpack_scales(const char * p, NeonBlock * out, int row) {
        const float d = half_float(p + 208);
        for (int b = 0; b < 8; b++) {
            out[b].scale[row] = d * (float) (int8_t) p[192 + 2 * b];
            out[b].extra[row] = d * (float) (int8_t) p[193 + 2 * b];
        }
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t low = vdupq_n_u8(15), high = vdupq_n_u8(48), zero = vdupq_n_u8(32);
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            unpack_scales(p, out, 2 * i);
            unpack_scales(p + stride, out, 2 * i + 1);
            for (int half = 0; half < 2; half++) {
                for (int k = 0; k < 4; k += 2) {
                    const Halves a = load_two_rows(p + 64 * half + 8 * k, stride);
                    const Halves b = load_two_rows(p + 64 * half + 32 + 8 * k, stride);
                    const Halves h = load_two_rows(p + 128 + 32 * half + 8 * k, stride);
#pragma GCC unroll 2
                    for (int j = 0; j < 2; j++) {
                        const uint8x16_t two  = h.v[j];
                        const uint8x16_t q[4] = {
                            vorrq_u8(vandq_u8(a.v[j], low), vandq_u8(vshlq_n_u8(two, 4), high)),
                            vorrq_u8(vandq_u8(b.v[j], low), vandq_u8(vshlq_n_u8(two, 2), high)),
                            vorrq_u8(vshrq_n_u8(a.v[j], 4), vandq_u8(two, high)),
                            vorrq_u8(vshrq_n_u8(b.v[j], 4), vandq_u8(vshrq_n_u8(two, 2), high)),
                        };
#pragma GCC unroll 4
                        for (int part = 0; part < 4; part++) {
                            store_eights(out[4 * half + part], k + j, i, vsubq_u8(q[part], zero));
                        }
                    }
                }
            }
        }
    }
};

}  // namespace axion

#endif
