// Activations of a floating-point matrix product: columns interleaved, so that a tile reads one stream.
#pragma once

#include "mul_mat_float_tile.h"

#include "vecmath.h"

namespace axion {

// in[r][0..3] to out[i][r], with rows of out `stride` apart.
inline void transpose_4x4(const uint32_t * const in[4], uint32_t * out, int stride) {
#if defined(__SSE2__)
    const __m128i a = _mm_loadu_si128((const __m128i *) in[0]), b = _mm_loadu_si128((const __m128i *) in[1]);
    const __m128i c = _mm_loadu_si128((const __m128i *) in[2]), d = _mm_loadu_si128((const __m128i *) in[3]);
    const __m128i ab0 = _mm_unpacklo_epi32(a, b), ab2 = _mm_unpackhi_epi32(a, b);
    const __m128i cd0 = _mm_unpacklo_epi32(c, d), cd2 = _mm_unpackhi_epi32(c, d);
    _mm_storeu_si128((__m128i *) out, _mm_unpacklo_epi64(ab0, cd0));
    _mm_storeu_si128((__m128i *) (out + stride), _mm_unpackhi_epi64(ab0, cd0));
    _mm_storeu_si128((__m128i *) (out + 2 * stride), _mm_unpacklo_epi64(ab2, cd2));
    _mm_storeu_si128((__m128i *) (out + 3 * stride), _mm_unpackhi_epi64(ab2, cd2));
#else
    for (int i = 0; i < 4; i++) {
        for (int r = 0; r < 4; r++) {
            out[i * stride + r] = in[r][i];
        }
    }
#endif
}

// Units of W columns, num_units a multiple of 4 and of the chains, from lines `line_units` apart.
inline void interleave(const uint32_t * lines, int64_t line_units, int width, int64_t num_units, uint32_t * group) {
    if (width == 1) {
        memcpy(group, lines, (size_t) num_units * sizeof(uint32_t));
        return;
    }
    if constexpr (num_chains > 1) {
        for (int64_t u = 0; u < num_units; u += num_chains) {
            for (int n = 0; n < width; n++, group += num_chains) {
                memcpy(group, lines + n * line_units + u, num_chains * sizeof(uint32_t));
            }
        }
        return;
    }
    const int quads = width / 4 * 4;
    for (int64_t u = 0; u < num_units; u += 4) {
        uint32_t * out = group + u * width;
        for (int n = 0; n < quads; n += 4) {
            const uint32_t * const in[4] = { lines + n * line_units + u, lines + (n + 1) * line_units + u,
                                             lines + (n + 2) * line_units + u, lines + (n + 3) * line_units + u };
            transpose_4x4(in, out + n, width);
        }
        for (int n = quads; n < width; n++) {
            for (int i = 0; i < 4; i++) {
                out[i * width + n] = lines[n * line_units + u + i];
            }
        }
    }
}

// To units, zeros behind the last value.
struct F32Units {
    static constexpr int64_t values = 1;

    static void convert(const float * x, int64_t n, int64_t num_units, uint32_t * line) {
        memcpy(line, x, (size_t) n * sizeof(float));
        memset(line + n, 0, (size_t) (num_units - n) * sizeof(uint32_t));
    }
};

#if defined(__AVX512BF16__)

// Rounded to nearest, denormals to zero: what the instruction does.
struct BF16Units {
    static constexpr int64_t values = 2;

    static void convert(const float * x, int64_t n, int64_t num_units, uint32_t * line) {
        for (int64_t i = 0; i < 2 * num_units; i += 16) {
            const int64_t   left = n - i < 0 ? 0 : n - i > 16 ? 16 : n - i;
            const __mmask16 mask = (__mmask16) ((1u << left) - 1);
            const int64_t   room = 2 * num_units - i;
            const __m256bh  v    = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x + i));
            _mm256_mask_storeu_epi16(line + i / 2, (__mmask16) (room >= 16 ? 0xffff : (1u << room) - 1), (__m256i) v);
        }
    }
};

#endif

// Values [k, k + n) of `width` columns.
template <class Units, int step>
void pack_columns(const float * const * columns, int width, int64_t k, int64_t n, uint32_t * group) {
    constexpr int64_t most = 256, line_units = most / Units::values;
    uint32_t          lines[group_columns * line_units];
    while (n > 0) {
        const int64_t part      = n < most ? n : most;
        const int64_t num_units = (part + step - 1) / step * step / Units::values;
        for (int j = 0; j < width; j++) {
            Units::convert(columns[j] + k, part, num_units, lines + j * line_units);
        }
        interleave(lines, line_units, width, num_units, group);
        group += num_units * width;
        k += part;
        n -= part;
    }
}

}  // namespace axion
