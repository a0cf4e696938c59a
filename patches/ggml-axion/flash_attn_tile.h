// Which tile this machine's flash attention has.
#pragma once

#include "flash_attn_tile_f16.h"

#if defined(AXION_AMX)
#include "flash_attn_tile_amx.h"
#define AXION_ATTENTION_TILE tiled
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "flash_attn_tile_avx512.h"
#define AXION_ATTENTION_TILE avx512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "flash_attn_tile_avx2.h"
#define AXION_ATTENTION_TILE avx2
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include "flash_attn_tile_smmla.h"
#define AXION_ATTENTION_TILE smmla
#elif defined(__ARM_FEATURE_DOTPROD)
#include "flash_attn_tile_sdot.h"
#define AXION_ATTENTION_TILE sdot
#endif

#if defined(AXION_ATTENTION_TILE)
#define AXION_HAS_ATTENTION_TILE 1
#else
#include "flash_attn_tile_plain.h"
#define AXION_ATTENTION_TILE plain
#define AXION_HAS_ATTENTION_TILE 0
#endif

namespace axion {
namespace fa {

namespace machine = AXION_ATTENTION_TILE;

}  // namespace fa
}  // namespace axion
