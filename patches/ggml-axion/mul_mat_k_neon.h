// Q4_K, Q5_K and Q6_K for the NEON tiles: a super-block of 256 of sixteen rows becomes eight blocks of 32.
#pragma once

#include "mul_mat_formats_neon.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

namespace axion {

// One factor of each of the eight blocks, of one row.
struct Eight {
    float32x4_t v[2];
};

AXION_INLINE Eight scaled(int8x8_t q, float d) {
    const int16x8_t w = vmovl_s8(q);
    return { { vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(w))), d),
               vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(w))), d) } };
}

AXION_INLINE void store_eight_factors(NeonBlock * out, float (NeonBlock::*factor)[row_pairs][4], int pair, Eight a,
                                      Eight b) {
#pragma GCC       unroll 2
    for (int i = 0; i < 2; i++) {
        const float32x4_t first = vzip1q_f32(a.v[i], b.v[i]), last = vzip2q_f32(a.v[i], b.v[i]);
        store_factors((out[4 * i].*factor)[pair], vget_low_f32(first));
        store_factors((out[4 * i + 1].*factor)[pair], vget_high_f32(first));
        store_factors((out[4 * i + 2].*factor)[pair], vget_low_f32(last));
        store_factors((out[4 * i + 3].*factor)[pair], vget_high_f32(last));
    }
}

// Scales and mins of one row: eight of each in six bits, times an FP16.
struct KScales {
    Eight scale, min;
};

struct KScaleBytes {
    int8x8_t scale, min;
};

AXION_INLINE KScaleBytes k_scale_bytes(const char * p) {
    uint32_t u[3];
    memcpy(u, p + 4, sizeof u);
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, top = 0x30303030;
    return { vcreate_s8((u[0] & six) | (uint64_t) ((u[2] & four) | (u[0] >> 2 & top)) << 32),
             vcreate_s8((u[1] & six) | (uint64_t) ((u[2] >> 4 & four) | (u[1] >> 2 & top)) << 32) };
}

AXION_INLINE KScales unpack_k_scales_neon(const char * p) {
    const KScaleBytes q = k_scale_bytes(p);
    return { scaled(q.scale, half_float(p)), scaled(q.min, -half_float(p + 2)) };
}

AXION_INLINE void store_k_scales(NeonBlock * out, int pair, const char * p, size_t stride) {
    const KScales a = unpack_k_scales_neon(p), b = unpack_k_scales_neon(p + stride);
    store_eight_factors(out, &NeonBlock::scale, pair, a.scale, b.scale);
    store_eight_factors(out, &NeonBlock::extra, pair, a.min, b.min);
}

// Nibbles of blocks 2 j and 2 j + 1 are the halves of the same 32 bytes; bit i of byte l of the fifth bits is of value
// l of block i.
template <class Block, bool has_fifth> struct KNibblesNeon {
    static constexpr int64_t block = QK_K;
    static constexpr int64_t bytes = sizeof(Block);
    static constexpr Kind    kind  = Kind::with_min;
    static constexpr int     first = has_fifth ? 48 : 16;
    static_assert(bytes == first + 128, "d, dmin, 12 bytes of scales and mins, fifth bits, 256 nibbles");

    // Four rows of the two blocks that share bytes.
    AXION_INLINE static void dot_two_blocks(const char * p, size_t stride, int j, const ActBlock<1> * a,
                                            int32x4_t d[2][4]) {
        const uint8x16_t low = vdupq_n_u8(15), fifth = vdupq_n_u8(16);
        const int8x16_t  to_even = vdupq_n_s8((int8_t) (4 - 2 * j)), to_odd = vdupq_n_s8((int8_t) (3 - 2 * j));
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++, p += stride) {
            d[0][r] = d[1][r] = vdupq_n_s32(0);
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                const uint8x16_t t    = load_bytes(p + first + 32 * j + 16 * i);
                uint8x16_t       even = vandq_u8(t, low), odd = vshrq_n_u8(t, 4);
                if (has_fifth) {
                    const uint8x16_t h = load_bytes(p + 16 + 16 * i);
                    even               = vbslq_u8(fifth, vshlq_u8(h, to_even), even);
                    odd                = vbslq_u8(fifth, vshlq_u8(h, to_odd), odd);
                }
                d[0][r] = dot_bytes(even, vld1q_s8(a[2 * j].q[0] + 16 * i), d[0][r]);
                d[1][r] = dot_bytes(odd, vld1q_s8(a[2 * j + 1].q[0] + 16 * i), d[1][r]);
            }
        }
    }

    __attribute__((noinline)) static void add_column(const char * p, size_t stride, const ActBlock<1> * a,
                                                     float32x4_t acc[4]) {
        for (int g = 0; g < 4; g++, p += 4 * stride) {
            float32x4_t scale[8], min[8], sum = acc[g];
            int8x8_t    scales[4], mins[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                const KScaleBytes q = k_scale_bytes(p + r * stride);
                scales[r]           = q.scale;
                mins[r]             = q.min;
            }
            transpose_bytes(scales, halves_to_floats(gather_16(p, stride)), scale);
            transpose_bytes(mins, vnegq_f32(halves_to_floats(gather_16(p + 2, stride))), min);
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                int32x4_t d[2][4];
                dot_two_blocks(p, stride, j, a, d);
#pragma GCC unroll 2
                for (int e = 0; e < 2; e++) {
                    const ActBlock<1> & x   = a[2 * j + e];
                    const float32x4_t   dot = dot_float(vaddq_s32(add_lanes(d[e]), start_of(0, 0)));
                    sum                     = vfmaq_f32(sum, dot, vmulq_n_f32(scale[2 * j + e], x.scale_of(0)));
                    sum                     = vfmaq_n_f32(sum, min[2 * j + e], x.sum_of(0));
                }
            }
            acc[g] = sum;
        }
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t low = vdupq_n_u8(15), fifth = vdupq_n_u8(16);
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            store_k_scales(out, i, p, stride);
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

    // Values 16 i .. 16 i + 15 of block 4 * half + part of a row, before 32 is taken off.
    AXION_INLINE static uint8x16_t values(const char * p, int half, int part, int i) {
        const uint8x16_t t = load_bytes(p + 64 * half + part % 2 * 32 + 16 * i);
        const uint8x16_t h = vshlq_u8(load_bytes(p + 128 + 32 * half + 16 * i), vdupq_n_s8((int8_t) (4 - 2 * part)));
        return vbslq_u8(vdupq_n_u8(48), h, part < 2 ? vandq_u8(t, vdupq_n_u8(15)) : vshrq_n_u8(t, 4));
    }

    __attribute__((noinline)) static void add_column(const char * p, size_t stride, const ActBlock<1> * a,
                                                     float32x4_t acc[4]) {
        for (int g = 0; g < 4; g++, p += 4 * stride) {
            float32x4_t scale[2][8], sum = acc[g];
            int8x8_t    halves[2][4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                const int8x16_t q = vld1q_s8((const int8_t *) p + r * stride + 192);
                halves[0][r]      = vget_low_s8(vuzp1q_s8(q, q));
                halves[1][r]      = vget_low_s8(vuzp2q_s8(q, q));
            }
            const float32x4_t d = halves_to_floats(gather_16(p + 208, stride));
            transpose_bytes(halves[0], d, scale[0]);
            transpose_bytes(halves[1], d, scale[1]);
            for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
                for (int part = 0; part < 4; part++) {
                    const ActBlock<1> & x = a[4 * half + part];
                    float32x4_t         dots[2];
#pragma GCC unroll 2
                    for (int i = 0; i < 2; i++) {
                        int32x4_t dot[4];
#pragma GCC unroll 4
                        for (int r = 0; r < 4; r++) {
                            dot[r] = dot_bytes(values(p + r * stride, half, part, i), vld1q_s8(x.q[0] + 16 * i),
                                               vdupq_n_s32(0));
                        }
                        const int32x4_t start = start_of(32, i == 0 ? x.low_sum(0) : x.whole_sum(0) - x.low_sum(0));
                        dots[i]               = dot_float(vaddq_s32(add_lanes(dot), start));
                    }
                    const int block = 4 * half + part;
                    dots[0]         = vfmaq_f32(vmulq_f32(dots[0], scale[0][block]), dots[1], scale[1][block]);
                    sum             = vfmaq_n_f32(sum, dots[0], x.scale_of(0));
                }
            }
            acc[g] = sum;
        }
    }

    // Of the halves of the eight blocks.
    static void store_scales_of_halves(NeonBlock * out, int pair, const char * p, size_t stride) {
        const int8x16_t a = vld1q_s8((const int8_t *) p + 192), b = vld1q_s8((const int8_t *) (p + stride) + 192);
        const float     d = half_float(p + 208), e = half_float(p + stride + 208);
        store_eight_factors(out, &NeonBlock::scale, pair, scaled(vget_low_s8(vuzp1q_s8(a, a)), d),
                            scaled(vget_low_s8(vuzp1q_s8(b, b)), e));
        store_eight_factors(out, &NeonBlock::extra, pair, scaled(vget_low_s8(vuzp2q_s8(a, a)), d),
                            scaled(vget_low_s8(vuzp2q_s8(b, b)), e));
    }

    static void unpack(const char * p, size_t stride, NeonBlock * out) {
        const uint8x16_t low = vdupq_n_u8(15), high = vdupq_n_u8(48), zero = vdupq_n_u8(32);
        for (int i = 0; i < row_pairs; i++, p += 2 * stride) {
            store_scales_of_halves(out, i, p, stride);
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
