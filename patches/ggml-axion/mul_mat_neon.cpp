// Which weight formats have NEON tiles.

#include "mul_mat_neon.h"

#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)

#define GGML_COMMON_DECL_CPP
#include "mul_mat_formats_neon.h"
#include "mul_mat_k_neon.h"

namespace axion {

template <class F> constexpr TileFormat format_of = make_tile_format<F>();

const TileFormat * tile_format(ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0:
        return &format_of<Q4_0Neon>;
    case GGML_TYPE_Q4_1:
        return &format_of<Q4_1Neon>;
    case GGML_TYPE_Q5_0:
        return &format_of<Q5_0Neon>;
    case GGML_TYPE_Q5_1:
        return &format_of<Q5_1Neon>;
    case GGML_TYPE_Q8_0:
        return &format_of<Q8_0Neon>;
    case GGML_TYPE_IQ4_NL:
        return &format_of<Iq4NlNeon>;
    case GGML_TYPE_Q4_K:
        return &format_of<Q4_KNeon>;
    case GGML_TYPE_Q5_K:
        return &format_of<Q5_KNeon>;
    case GGML_TYPE_Q6_K:
        return &format_of<Q6_KNeon>;
    default:
        return nullptr;
    }
}

}  // namespace axion

#endif
