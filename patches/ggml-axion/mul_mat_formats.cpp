// Which weight formats have tiles on this instruction set: the one table over the unpackers of each.

#define GGML_COMMON_DECL_CPP
#include "mul_mat_tile.h"

#if defined(__x86_64__)
#include "mul_mat_amx.h"
#include "mul_mat_avx2.h"
#include "mul_mat_avx512.h"
#include "mul_mat_k_x86.h"
#include "mul_mat_q4_x86.h"
#include "mul_mat_q5_x86.h"
#include "mul_mat_q8_x86.h"
#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)
#define AXION_HAS_TILES
#endif
#elif defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_MATMUL_INT8)
#include "mul_mat_formats_neon.h"
#include "mul_mat_k_neon.h"
#define AXION_HAS_TILES
#endif

namespace axion {

#ifdef AXION_HAS_TILES

template <class F>
constexpr TileFormat tiles_of = {
    F::block,
    { nullptr, fused_tile<F, 1>, fused_tile<F, 2>, fused_tile<F, 3>, fused_tile<F, 4>, fused_tile<F, 5>,
      fused_tile<F, 6>, fused_tile<F, 7>, fused_tile<F, 8> },
    { nullptr, panel_of<F, 1>, panel_of<F, 2>, panel_of<F, 3>, panel_of<F, 4>, panel_of<F, 5>, panel_of<F, 6>,
      panel_of<F, 7>, panel_of<F, 8> },
    unpack_panel<F>,
#if defined(AXION_AMX)
    wide_tile<amx::MachineTiles, F::kind>,
    unpack_wide<F>,
#endif
};

#if defined(AXION_TILES_AVX2) && !defined(AXION_DPBUSD)
// Without dots of bytes into int32 one column of the others is 10 to 30% slower than upstream's own code.
constexpr bool takes_all = false;
#else
constexpr bool takes_all = true;
#endif

template <class F> const TileFormat * tiles_where_fast() {
    if constexpr (takes_all) {
        return &tiles_of<F>;
    }
    return nullptr;
}

const TileFormat * tile_format(ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0:
        return &tiles_of<Q4_0Weights>;
    case GGML_TYPE_Q4_1:
        return &tiles_of<Q4_1Weights>;
    case GGML_TYPE_Q5_0:
        return &tiles_of<Q5_0Weights>;
    case GGML_TYPE_Q5_1:
        return &tiles_of<Q5_1Weights>;
    case GGML_TYPE_Q8_0:
        return &tiles_of<Q8_0Weights>;
    case GGML_TYPE_IQ4_NL:
        return tiles_where_fast<Iq4NlWeights>();
    case GGML_TYPE_Q4_K:
        return tiles_where_fast<Q4_KWeights>();
    case GGML_TYPE_Q5_K:
        return tiles_where_fast<Q5_KWeights>();
    case GGML_TYPE_Q6_K:
        return tiles_where_fast<Q6_KWeights>();
    default:
        return nullptr;
    }
}

#else

const TileFormat * tile_format(ggml_type) {
    return nullptr;
}

#endif

}  // namespace axion
