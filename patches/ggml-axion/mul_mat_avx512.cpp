// Which weight formats have AVX-512 VNNI tiles.

#include "mul_mat_avx512.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#define GGML_COMMON_DECL_CPP
#include "mul_mat_k_avx512.h"
#include "mul_mat_q4_avx512.h"
#include "mul_mat_q5_avx512.h"
#include "mul_mat_q8_avx512.h"

namespace axion {

template <class F> constexpr TileFormat format_of = make_tile_format<F>();

const TileFormat * tile_format(ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0:
        return &format_of<Q4_0Avx512>;
    case GGML_TYPE_Q4_1:
        return &format_of<Q4_1Avx512>;
    case GGML_TYPE_Q5_0:
        return &format_of<Q5_0Avx512>;
    case GGML_TYPE_Q5_1:
        return &format_of<Q5_1Avx512>;
    case GGML_TYPE_Q8_0:
        return &format_of<Q8_0Avx512>;
    case GGML_TYPE_IQ4_NL:
        return &format_of<Iq4NlAvx512>;
    case GGML_TYPE_Q4_K:
        return &format_of<Q4_KAvx512>;
    case GGML_TYPE_Q5_K:
        return &format_of<Q5_KAvx512>;
    case GGML_TYPE_Q6_K:
        return &format_of<Q6_KAvx512>;
    default:
        return nullptr;
    }
}

}  // namespace axion

#elif !defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_MATMUL_INT8)

namespace axion {

const TileFormat * tile_format(ggml_type) {
    return nullptr;
}

}  // namespace axion

#endif
