// Quantised products in AMX' tiles: the bits of the plain twin, whatever the width, the cut along K and the lanes. On
// every x86 machine with the plain model of a tile, all formats; with the hardware's where there are such.

#include "mul_mat_case.h"
#include "small.h"

#include "amx_model.h"
#include "mul_mat_amx.h"

#if defined(AXION_TILES_AVX512) || defined(AXION_TILES_AVX2)

#include "mul_mat_k_x86.h"
#include "mul_mat_q4_x86.h"
#include "mul_mat_q5_x86.h"
#include "mul_mat_q8_x86.h"

namespace {

struct WideFormat {
    WideTile wide;
    Unpack   unpack;
};

template <class Tiles, class F> WideFormat make() {
    return { wide_tile<Tiles, F::kind>, unpack_wide<F> };
}

template <class Tiles> WideFormat wide_format(ggml_type type) {
    switch (type) {
    case GGML_TYPE_Q4_0:
        return make<Tiles, Q4_0Weights>();
    case GGML_TYPE_Q4_1:
        return make<Tiles, Q4_1Weights>();
    case GGML_TYPE_IQ4_NL:
        return make<Tiles, Iq4NlWeights>();
    case GGML_TYPE_Q5_0:
        return make<Tiles, Q5_0Weights>();
    case GGML_TYPE_Q5_1:
        return make<Tiles, Q5_1Weights>();
    case GGML_TYPE_Q8_0:
        return make<Tiles, Q8_0Weights>();
    case GGML_TYPE_Q4_K:
        return make<Tiles, Q4_KWeights>();
    case GGML_TYPE_Q5_K:
        return make<Tiles, Q5_KWeights>();
    default:
        return make<Tiles, Q6_KWeights>();
    }
}

std::vector<WideBlock> wide_acts(const Product & p) {
    std::vector<WideBlock> acts((size_t) p.num_blocks, WideBlock{});
    for (int64_t b = 0; b < p.num_blocks; b++) {
        for (int64_t n = 0; n < p.num_columns; n++) {
            const QuantisedBlock q  = quantise_block(p.column(n) + b * act_block);
            WideBlock &          to = acts[(size_t) b];
            memcpy(to.q[n], q.q, sizeof q.q);
            to.scale[n] = q.scale;
            to.sum[n]   = q.scale * (float) q.sum;
        }
    }
    return acts;
}

// All rows, K in panels of `step` blocks; the last tile of rows overlaps the one before and stores only its own lanes.
template <class Tiles> void run(Product & p, int64_t step) {
    static constexpr amx::TileConfig config = WideTiles::config();
    const amx::TileSession<Tiles>    session(config);
    const WideFormat                 format = wide_format<Tiles>(p.f.type);
    const Buffer                     buffer = aligned_buffer((size_t) step * sizeof(PanelBlock));
    PanelBlock *                     panel  = (PanelBlock *) buffer.get();
    const std::vector<WideBlock>     acts   = wide_acts(p);
    const int64_t                    last   = p.num_rows - tile_rows;
    std::fill(p.y.begin(), p.y.end(), -7.0f);
    for (int64_t r = 0; r < p.num_rows; r += tile_rows) {
        const int64_t  start = r < last ? r : last;
        const uint16_t lanes = (uint16_t) (0xffff << (r - start));
        for (int64_t b = 0; b < p.num_blocks; b += step) {
            const int64_t n = std::min(step, p.num_blocks - b);
            format.unpack(p.row(start), p.row_bytes, b, n, panel);
            format.wide(panel, n, acts.data() + b, (int) p.num_columns, { p.dst.data(), start, lanes }, b == 0);
        }
    }
}

template <class Tiles>
void test_product(const char * what, const Format & f, Random & random, int64_t columns, int64_t blocks) {
    Product p(f, random, 16 + random.below(3) * 8, columns, blocks);
    for (int64_t step : { blocks, f.block / act_block, 3 * f.block / act_block }) {
        run<Tiles>(p, step);
        for (int64_t j = 0; j < columns; j++) {
            for (int64_t r = 0; r < p.num_rows; r++) {
                const float expected = p.expected(r, j), got = p.dst[(size_t) j][r];
                CHECK(same_bits(got, expected), "%s %s %d columns %d blocks step %d: r %d j %d: %.9g, plain %.9g", what,
                      f.name, (int) columns, (int) blocks, (int) step, (int) r, (int) j, got, expected);
                p.check_accuracy(r, j);
            }
        }
    }
}

// A NaN or infinity in one column shows in all of its products, and in no other's.
template <class Tiles> void test_not_finite(const Format & f) {
    Random random;
    for (float value : { NAN, INFINITY, -INFINITY }) {
        Product p(f, random, tile_rows, 3, f.block / act_block * 2);
        p.x[(size_t) (p.num_blocks * act_block) + 17] = value;
        run<Tiles>(p, p.num_blocks);
        for (int r = 0; r < tile_rows; r++) {
            CHECK(!std::isfinite(p.dst[1][r]), "%s: %g hidden", f.name, value);
            CHECK(std::isfinite(p.dst[0][r]) && std::isfinite(p.dst[2][r]), "%s: %g spread", f.name, value);
        }
    }
}

template <class Tiles> void test_all(const char * what) {
    for (const Format & f : formats) {
        Random        random;
        const int64_t step = f.block / act_block;
        for (int64_t columns : { 1, 2, 7, 8, 9, 13, 16 }) {
            for (int64_t steps : { 1, 2, 3, 18 }) {
                if (steps < 18 || columns == 13 || !is_small()) {
                    test_product<Tiles>(what, f, random, columns, steps * step);
                }
            }
        }
        test_not_finite<Tiles>(f);
    }
}

}  // namespace

int main() {
    test_all<amx::ModelTiles>("model");
#if defined(__AMX_TILE__) && defined(__AMX_INT8__) && defined(__linux__)
    if (amx::is_permitted()) {
        test_all<amx::HardwareTiles>("hardware");
        printf("the hardware's tiles were tested\n");
    } else {
        printf("skipped: this machine's kernel or CPU gives no tiles\n");
    }
#else
    printf("skipped: no tiles of the hardware's on this machine\n");
#endif
    return report("mul_mat_amx");
}

#else

int main() {
    printf("skipped: AMX' tiles are unpacked by AVX2 or AVX-512\n");
    return 0;
}

#endif
