// Registers as the weight formats fill them on x86: a dword of each of 16 rows (AVX-512 VNNI) or of 8 (AVX2).
//
// The formats' files are written with these and hold for both. With dots of unsigned bytes into int32 (VNNI) a weight
// takes all eight bits; without, sums of two products have to fit 16 bits and weights stay as small as they are.
#pragma once

#include "mul_mat_tile.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#define AXION_TILES_AVX512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define AXION_TILES_AVX2
#endif

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include <cstring>
#include <immintrin.h>

// A call would spill what the caller keeps in registers.
#define AXION_INLINE inline __attribute__((always_inline))

namespace axion {

enum class Kind {
    zero_point,  // weights are scale * (q - zero)
    with_min,    // weights are scale * q + min
    two_scales,  // as zero_point, with a scale for each 16
};

#if defined(AXION_TILES_AVX512)
using Bytes                   = __m512i;
using Floats                  = __m512;
constexpr int64_t vector_rows = 16;
#else
using Bytes                   = __m256i;
using Floats                  = __m256;
constexpr int64_t vector_rows = 8;
#endif

#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(AXION_TILES_AVX512)
#define AXION_DPBUSD
constexpr bool has_vnni = true;
#else
constexpr bool has_vnni = false;
#endif

// Bits to move a weight of so many bits up: with VNNI every zero point is 128, and the scale is divided accordingly.
template <int bits> constexpr int raised_by = has_vnni ? 8 - bits : 0;

typedef uint16_t Words __attribute__((vector_size(sizeof(Bytes))));
typedef uint32_t Dwords __attribute__((vector_size(sizeof(Bytes))));
typedef int32_t  SignedDwords __attribute__((vector_size(sizeof(Bytes))));

// One block of 32 of vector_rows rows; the layout of PanelBlock.
struct Unpacked {
    Bytes  q[8];
    Floats scale;
    Floats extra;
};

// By n bits up, or down where n < 0, within 16: what comes from the neighbour byte is for the caller to mask.
AXION_INLINE Bytes shift_words(Bytes v, int n) {
    return n < 0 ? (Bytes) ((Words) v >> -n) : (Bytes) ((Words) v << n);
}

#if defined(AXION_TILES_AVX512)

AXION_INLINE Bytes splat_byte(int x) {
    return _mm512_set1_epi8((char) x);
}

AXION_INLINE Bytes splat_16(__m128i v) {
    return _mm512_broadcast_i32x4(v);
}

AXION_INLINE Bytes look_up(Bytes table, Bytes index) {
    return _mm512_shuffle_epi8(table, index);
}

AXION_INLINE Floats splat_float(float x) {
    return _mm512_set1_ps(x);
}

AXION_INLINE Floats to_float(Bytes dwords) {
    return _mm512_cvtepi32_ps(dwords);
}

// Adds `value`, a bit that q does not have, to bytes of q where the bit of `bits` is set in `v`.
AXION_INLINE Bytes add_where(Bytes q, Bytes v, Bytes bits, Bytes value) {
    return _mm512_mask_add_epi8(q, _mm512_test_epi8_mask(v, bits), q, value);
}

// Sixteen bytes of each row, transposed: t[i] has dword i of every row.
AXION_INLINE void load_transposed(const char * p, size_t stride, Bytes t[4]) {
    __m512i r[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const char * q = p + i * stride;
        __m512i      v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *) q));
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 4 * stride)), 1);
        v              = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 8 * stride)), 2);
        r[i]           = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *) (q + 12 * stride)), 3);
    }
    const __m512i ab0 = _mm512_unpacklo_epi32(r[0], r[1]), ab2 = _mm512_unpackhi_epi32(r[0], r[1]);
    const __m512i cd0 = _mm512_unpacklo_epi32(r[2], r[3]), cd2 = _mm512_unpackhi_epi32(r[2], r[3]);
    t[0] = _mm512_unpacklo_epi64(ab0, cd0);
    t[1] = _mm512_unpackhi_epi64(ab0, cd0);
    t[2] = _mm512_unpacklo_epi64(ab2, cd2);
    t[3] = _mm512_unpackhi_epi64(ab2, cd2);
}

AXION_INLINE Floats low_halves_to_float(Bytes v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

#else

AXION_INLINE Bytes splat_byte(int x) {
    return _mm256_set1_epi8((char) x);
}

AXION_INLINE Bytes splat_16(__m128i v) {
    return _mm256_broadcastsi128_si256(v);
}

AXION_INLINE Bytes look_up(Bytes table, Bytes index) {
    return _mm256_shuffle_epi8(table, index);
}

AXION_INLINE Floats splat_float(float x) {
    return _mm256_set1_ps(x);
}

AXION_INLINE Floats to_float(Bytes dwords) {
    return _mm256_cvtepi32_ps(dwords);
}

AXION_INLINE Bytes add_where(Bytes q, Bytes v, Bytes bits, Bytes value) {
    return q | (_mm256_cmpeq_epi8(v & bits, bits) & value);
}

AXION_INLINE void load_transposed(const char * p, size_t stride, Bytes t[4]) {
    __m256i r[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        const char *  q   = p + i * stride;
        const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) q));
        r[i]              = _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *) (q + 4 * stride)), 1);
    }
    const __m256i ab0 = _mm256_unpacklo_epi32(r[0], r[1]), ab2 = _mm256_unpackhi_epi32(r[0], r[1]);
    const __m256i cd0 = _mm256_unpacklo_epi32(r[2], r[3]), cd2 = _mm256_unpackhi_epi32(r[2], r[3]);
    t[0] = _mm256_unpacklo_epi64(ab0, cd0);
    t[1] = _mm256_unpackhi_epi64(ab0, cd0);
    t[2] = _mm256_unpacklo_epi64(ab2, cd2);
    t[3] = _mm256_unpackhi_epi64(ab2, cd2);
}

AXION_INLINE Floats low_halves_to_float(Bytes v) {
    const __m256i low = v & _mm256_set1_epi32(0xffff);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
}

#endif

AXION_INLINE Floats high_halves_to_float(Bytes v) {
    return low_halves_to_float((Bytes) ((Dwords) v >> 16));
}

// Four bytes of each of four rows.
AXION_INLINE __m128i load_four_dwords(const char * p, size_t stride) {
    int32_t d[4];
#pragma GCC unroll 4
    for (size_t r = 0; r < 4; r++) {
        memcpy(&d[r], p + r * stride, 4);
    }
    return _mm_insert_epi32(_mm_insert_epi32(_mm_insert_epi32(_mm_cvtsi32_si128(d[0]), d[1], 1), d[2], 2), d[3], 3);
}

// Four bytes of each row.
AXION_INLINE Bytes load_dwords(const char * p, size_t stride) {
    const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load_four_dwords(p, stride)),
                                                load_four_dwords(p + 4 * stride, stride), 1);
#if defined(AXION_TILES_AVX512)
    const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load_four_dwords(p + 8 * stride, stride)),
                                                 load_four_dwords(p + 12 * stride, stride), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#else
    return low;
#endif
}

// Two bytes of each of eight rows.
AXION_INLINE __m128i load_eight_words(const char * p, size_t stride) {
    int16_t h[8];
#pragma GCC unroll 8
    for (size_t r = 0; r < 8; r++) {
        memcpy(&h[r], p + r * stride, 2);
    }
    return _mm_setr_epi16(h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]);
}

// An FP16 of each row.
AXION_INLINE Floats load_halves(const char * p, size_t stride) {
#if defined(AXION_TILES_AVX512)
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(load_eight_words(p, stride)),
                                                   load_eight_words(p + 8 * stride, stride), 1));
#else
    return _mm256_cvtph_ps(load_eight_words(p, stride));
#endif
}

// Byte i of every row's dword, and as a signed one.
AXION_INLINE Floats byte_to_float(Bytes v, int i) {
    return to_float((Bytes) ((Dwords) v >> 8 * i & 0xff));
}

AXION_INLINE Floats signed_byte_to_float(Bytes v, int i) {
    return to_float((Bytes) ((SignedDwords) ((Dwords) v << (24 - 8 * i)) >> 24));
}

// Step i of `bytes` in each of 16 rows, to L2; short steps share their lines.
template <int64_t bytes> AXION_INLINE void prefetch_rows(const char * p, size_t stride, int64_t i) {
    constexpr int64_t steps_per_line = bytes < 64 ? 64 / bytes : 1;
    if (i % steps_per_line == 0) {
        for (int64_t r = 0; r < tile_rows; r++) {
            for (int64_t at = 0; at < bytes; at += 64) {
                _mm_prefetch(p + r * (int64_t) stride + at, _MM_HINT_T1);
            }
        }
    }
}

// The tiles to come are one stream: sixteen short ones are too much for the hardware's prefetcher. `unpacked`, of the
// block at work, holds the compiler back from fetching for all blocks of a super-block in one burst.
template <int64_t bytes> AXION_INLINE void prefetch_ahead(const char *& ahead, const Bytes & unpacked) {
#pragma GCC                                unroll 16
    for (int64_t i = 0; i < bytes; i += 64) {
        _mm_prefetch(ahead + i, _MM_HINT_T1);
    }
    ahead += bytes;
    asm volatile("" : "+r"(ahead) : "v"(unpacked));
}

AXION_INLINE const char * prefetch_start(const char * rows, size_t row_bytes, const TileOutput & out) {
    const size_t tile = tile_rows * row_bytes;
    return out.ahead != nullptr ? out.ahead : rows + tile * (1 + prefetch_bytes / tile);
}

}  // namespace axion

#endif
