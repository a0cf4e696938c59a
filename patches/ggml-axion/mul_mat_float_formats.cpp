// The tables of strips for floating-point weights on this machine.

#include "mul_mat_float_8x8.h"
#include "mul_mat_float_avx512.h"
#include "mul_mat_float_bfmmla.h"
#include "mul_mat_float_pack.h"

namespace axion {
namespace {

#define ALL_WIDTHS(f) { nullptr, f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8) }

#if defined(AXION_FLOAT_8X8)

template <class F>
constexpr FloatFormat make = {
    1,
    4,
    pack_columns<F32Units, 4>,
    pack_strip<F>,
#define AXION_PANEL(w) panel_strips<w>
#define AXION_FUSED(w) fused_strip<F, w>
    ALL_WIDTHS(AXION_PANEL),
    ALL_WIDTHS(AXION_FUSED),
};

#if defined(AXION_FLOAT_BFMMLA)

struct BF16Mmla {};

template <>
constexpr FloatFormat make<BF16Mmla> = {
    2,
    mmla_step,
    pack_mmla_columns,
    pack_mmla_strip,
#define AXION_MMLA_PANEL(w) mmla_panel<w>
#define AXION_MMLA_FUSED(w) fused_mmla<w>
    ALL_WIDTHS(AXION_MMLA_PANEL),
    ALL_WIDTHS(AXION_MMLA_FUSED),
};

using BF16 = BF16Mmla;

#else

using BF16 = BF16Quad;

#endif

using F32 = F32Quad;
using F16 = F16Quad;

#elif defined(__AVX512F__) && defined(__AVX512BW__)

template <class F> struct UnitsOf {
    using type = F32Units;
};

#if defined(__AVX512BF16__)
template <> struct UnitsOf<BF16Avx512> {
    using type = BF16Units;
};
#endif

template <class F> constexpr int step_of = step_bytes / F::value_bytes;

template <class F>
constexpr FloatFormat make = {
    F::values_per_unit,
    step_of<F>,
    pack_columns<typename UnitsOf<F>::type, step_of<F>>,
    pack_strip<F>,
#define AXION_PANEL(w) panel_strips<F, w>
#define AXION_FUSED(w) fused_strip<F, w>
    ALL_WIDTHS(AXION_PANEL),
    ALL_WIDTHS(AXION_FUSED),
};

using F32  = F32Avx512;
using F16  = F16Avx512;
using BF16 = BF16Avx512;

#endif

}  // namespace

const FloatFormat * float_format([[maybe_unused]] ggml_type type) {
#if defined(AXION_FLOAT_8X8) || (defined(__AVX512F__) && defined(__AVX512BW__))
    switch (type) {
    case GGML_TYPE_F32:
        return &make<F32>;
    case GGML_TYPE_F16:
        return &make<F16>;
    case GGML_TYPE_BF16:
        return &make<BF16>;
    default:
        break;
    }
#endif
    return nullptr;
}

}  // namespace axion
