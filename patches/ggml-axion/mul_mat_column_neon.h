// One column (decode of one sequence): SDOT straight from the packed rows, four rows to a vector of sums.
//
// Unpacking into a panel would cost more than the dots. Weights stay unsigned where the format has a zero point: dots
// start from what that takes off the whole block. The chain, and so the bits, are those of the tiles.
#pragma once

#include "mul_mat_neon.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

namespace axion {

AXION_INLINE float half_float(const char * p) {
    __fp16 h;
    memcpy(&h, p, sizeof h);
    return (float) h;
}

AXION_INLINE uint8x16_t load_bytes(const char * p) {
    return vld1q_u8((const uint8_t *) p);
}

AXION_INLINE int32x4_t dot_bytes(uint8x16_t w, int8x16_t x, int32x4_t d) {
    return vdotq_s32(d, vreinterpretq_s8_u8(w), x);
}

// The sums of four rows, in order.
AXION_INLINE int32x4_t add_lanes(const int32x4_t d[4]) {
    return vpaddq_s32(vpaddq_s32(d[0], d[1]), vpaddq_s32(d[2], d[3]));
}

// `zero` times the sum of the activations taken off, and the bias of dot_float.
AXION_INLINE int32x4_t start_of(int zero, float sum) {
    return vreinterpretq_s32_f32(vdupq_n_f32(dot_bias - (float) zero * sum));
}

// In general registers: the vector pipes are busy.
AXION_INLINE uint64_t gather_16(const char * p, size_t stride) {
    uint16_t h[4];
    for (int r = 0; r < 4; r++) {
        memcpy(&h[r], p + r * stride, sizeof h[r]);
    }
    return h[0] | (uint64_t) h[1] << 16 | (uint64_t) h[2] << 32 | (uint64_t) h[3] << 48;
}

AXION_INLINE uint64_t gather_32(const char * p, size_t stride) {
    uint32_t h[2];
    for (int r = 0; r < 2; r++) {
        memcpy(&h[r], p + r * stride, sizeof h[r]);
    }
    return h[0] | (uint64_t) h[1] << 32;
}

AXION_INLINE float32x4_t halves_to_floats(uint64_t four) {
    return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(four)));
}

// Sixteen rows of a format with blocks of 32: Format::values gives a row's 32 bytes before Format::zero is taken off.
template <class Format>
AXION_INLINE void add_column_of_32(const char * p, size_t stride, const ActBlock<1> & a, float32x4_t acc[4]) {
    const int8x16_t x[2]  = { vld1q_s8(a.q[0]), vld1q_s8(a.q[0] + 16) };
    const int32x4_t start = start_of(Format::zero, a.whole_sum(0));
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++, p += 4 * stride) {
        int32x4_t d[4];
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            uint8x16_t q[2];
            Format::values(p + r * stride, q);
            d[r] = dot_bytes(q[1], x[1], dot_bytes(q[0], x[0], vdupq_n_s32(0)));
        }
        const float32x4_t dot = dot_float(vaddq_s32(add_lanes(d), start));
        if constexpr (Format::kind == Kind::with_min) {
            const uint16x8_t both = vreinterpretq_u16_u64(
                vcombine_u64(vcreate_u64(gather_32(p, stride)), vcreate_u64(gather_32(p + 2 * stride, stride))));
            const float32x4_t scale = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp1q_u16(both, both))));
            const float32x4_t min   = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp2q_u16(both, both))));
            acc[g]                  = vfmaq_f32(acc[g], dot, vmulq_n_f32(scale, a.scale_of(0)));
            acc[g]                  = vfmaq_n_f32(acc[g], min, a.sum_of(0));
        } else {
            const float32x4_t scale = halves_to_floats(gather_16(p, stride));
            acc[g]                  = vfmaq_f32(acc[g], dot, vmulq_n_f32(scale, a.scale_of(0)));
        }
    }
}

// Four rows' bytes 8 i .. 8 i + 7, one per block, to floats: out[block] holds the four rows.
AXION_INLINE void transpose_bytes(const int8x8_t row[4], float32x4_t factor, float32x4_t out[8]) {
    const int16x8_t ab  = vreinterpretq_s16_s8(vcombine_s8(vzip1_s8(row[0], row[1]), vzip2_s8(row[0], row[1])));
    const int16x8_t cd  = vreinterpretq_s16_s8(vcombine_s8(vzip1_s8(row[2], row[3]), vzip2_s8(row[2], row[3])));
    const int8x16_t v[] = { vreinterpretq_s8_s16(vzip1q_s16(ab, cd)), vreinterpretq_s8_s16(vzip2q_s16(ab, cd)) };
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const int16x8_t low = vmovl_s8(vget_low_s8(v[i])), high = vmovl_s8(vget_high_s8(v[i]));
        out[4 * i]     = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), factor);
        out[4 * i + 1] = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))), factor);
        out[4 * i + 2] = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), factor);
        out[4 * i + 3] = vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_high_s16(high))), factor);
    }
}

}  // namespace axion

#endif
