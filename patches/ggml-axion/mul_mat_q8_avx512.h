// Q8_0 for the AVX-512 tiles: signed bytes shifted to unsigned, sixteen rows at a time.
#pragma once

#include "mul_mat_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#include "ggml-common.h"

namespace axion {

struct Q8_0Weights {
    static constexpr int64_t block = QK8_0;
    static constexpr int64_t bytes = sizeof(block_q8_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static_assert(bytes == 34, "d, 32 bytes");

    template <class Sink> static void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked      u;
        const __m512i flip = _mm512_set1_epi8((char) 0x80);
        load_transposed(p + 2, stride, u.q);
        load_transposed(p + 18, stride, u.q + 4);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            u.q[i] = _mm512_xor_si512(u.q[i], flip);
        }
        u.scale = low_halves_to_float(load_dwords(p, stride));
        sink(0, u);
    }
};

}  // namespace axion

#endif
