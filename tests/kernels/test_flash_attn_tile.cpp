// The machine's attention tile against the plain one, and the conversion of FP16 that both use.

#include "flash_attn_case.h"
#include "flash_attn_tile_plain.h"

namespace {

// The machine's tile gives the plain tile's bits: sums of integers, then the same float operations in the same order.
// The largest values that can be, too.
void tile_against_plain() {
    Random random;
    for (int d : { 32, 96, 128, 576 }) {
        for (int n = 1; n <= most_rows; n++) {
#if defined(AXION_AMX)
            const machine::Session session(amx::is_permitted_here());
            if (!machine::are_open && n > group_rows) {
                break;
            }
#endif
            const int                 positions = 1 + random.below(span_size), num_scales = d / quant_size;
            const bool                is_extreme = random.below(3) == 0;
            std::vector<char>         cache((size_t) positions * num_scales * quant_bytes);
            std::vector<const char *> rows;
            std::vector<int8_t>       q((size_t) n * d);
            std::vector<float>        q_scales(n * num_scales), units(num_scales * most_rows);
            std::vector<int32_t>      starts(n * num_scales);
            for (size_t i = 0; i < cache.size(); i++) {
                cache[i] = (char) (is_extreme ? -128 : random.bits());
            }
            for (int p = 0; p < positions; p++) {
                rows.push_back(&cache[(size_t) p * num_scales * quant_bytes]);
                for (int b = 0; b < num_scales; b++) {
                    const uint16_t h = to_half(0.002f + 0.01f * fabsf(random.real()));
                    memcpy(&cache[((size_t) p * num_scales + b) * quant_bytes], &h, 2);
                }
            }
            for (size_t i = 0; i < q.size(); i++) {
                q[i] = (int8_t) (is_extreme ? -127 : random.below(255) - 127);
                starts[i / quant_size] -= machine::k_bias * q[i];
            }
            for (float & x : q_scales) {
                x = random.real();
            }
            for (float & x : units) {
                x = random.real();
            }
            struct Side {
                alignas(64) uint8_t packed[span_size * 576 * 2];
                alignas(64) float scales[span_size * 18], scores[most_rows * span_size], w[span_size];
                alignas(64) uint8_t weights[most_rows * 18 * 2 * span_size];
                float   values[most_rows][576];
                float * out[most_rows];
            };
            static Side   ours, theirs;
            const QueryQ8 query = { q.data(), q_scales.data(), starts.data(), d };
            const int     end = (positions + 15) / 16, begin = random.below(end);
            const int     from = begin * 16 + random.below(positions - begin * 16);
            machine::pack_k_q8(rows.data(), positions, d, ours.packed, ours.scales);
            plain::pack_k_q8(rows.data(), positions, d, theirs.packed, theirs.scales);
            machine::scores_q8(query, n, ours.packed, ours.scales, begin, end, ours.scores);
            plain::scores_q8(query, n, theirs.packed, theirs.scales, begin, end, theirs.scores);
            for (int r = 0; r < n; r++) {
                const size_t at = (size_t) r * span_size + begin * 16;
                CHECK(same(ours.scores + at, theirs.scores + at, positions - begin * 16), "scores of %d, row %d", d, r);
            }
            machine::pack_v_q8(rows.data(), positions, d, ours.packed, ours.scales);
            plain::pack_v_q8(rows.data(), positions, d, theirs.packed, theirs.scales);
            for (int r = 0; r < n; r++) {
                ours.out[r] = ours.values[r], theirs.out[r] = theirs.values[r];
                for (int b = 0; b < num_scales; b++) {
                    for (int p = 0; p < span_size; p++) {  // at most a block of them
                        const bool is_seen = p >= from && p < positions && p < from + block_size;
                        ours.w[p]          = is_seen ? (is_extreme ? 1.0f : fabsf(random.real())) : 0.0f;
                        theirs.w[p]        = is_seen ? machine::weight_max : 0.0f;
                    }
                    machine::write_weights(ours.w, theirs.w, { ours.weights, num_scales }, r, b, begin, end);
                    plain::write_weights(ours.w, theirs.w, { theirs.weights, num_scales }, r, b, begin, end);
                }
            }
            machine::values_q8({ ours.weights, num_scales }, n, ours.packed, d, begin, end, units.data(), ours.out);
            plain::values_q8({ theirs.weights, num_scales }, n, theirs.packed, d, begin, end, units.data(), theirs.out);
            for (int r = 0; r < n; r++) {
                CHECK(same(ours.values[r], theirs.values[r], d), "values of %d, row %d of %d", d, r, n);
            }
        }
    }
}

void half_conversion() {
    CHECK(half_to_float(0x3c00) == 1.0f && half_to_float(0xc000) == -2.0f, "normal");
    CHECK(half_to_float(0x0001) == 0x1p-24f && half_to_float(0x83ff) == -0x3ffp-24f, "denormal");
    CHECK(std::isinf(half_to_float(0x7c00)) && std::isnan(half_to_float(0x7e01)) && half_to_float(0x8000) == 0,
          "special");
}

}  // namespace

int main() {
    half_conversion();
    tile_against_plain();
    return report("flash_attn_tile");
}
