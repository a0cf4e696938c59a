// Q8_0 for the x86 tiles: signed bytes, with VNNI shifted to unsigned, a vector of rows at a time.
#pragma once

#include "mul_mat_x86.h"

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include "ggml-common.h"

namespace axion {

struct Q8_0Weights {
    static constexpr int64_t block = QK8_0;
    static constexpr int64_t bytes = sizeof(block_q8_0);
    static constexpr Kind    kind  = Kind::zero_point;
    static constexpr int     bits  = 8;
    static_assert(bytes == 34, "d, 32 bytes");

    template <class Sink> static AXION_INLINE void unpack(const char * p, size_t stride, Sink && sink) {
        Unpacked u;
        load_transposed(p + 2, stride, u.q);
        load_transposed(p + 18, stride, u.q + 4);
        if (has_vnni) {
            const Bytes flip = splat_byte(0x80);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                u.q[i] = u.q[i] ^ flip;
            }
        }
        u.scale = load_halves(p, stride);
        sink(0, u);
    }
};

}  // namespace axion

#endif
