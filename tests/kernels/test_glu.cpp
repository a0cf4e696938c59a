// Activations and gated units against their references in double: sweeps, tails, extremes, the same bits for any split.

#include "check.h"
#include "glu.h"

#include <algorithm>
#include <limits>
#include <vector>

using namespace axion;

namespace {

// Off by (4 + 3 |t|) ULP as glu.h states it, or by `floor` |x|.
template <class F, class G, class T>
void sweep(const char * name, float low, float high, F f, G truth, T exponent, double floor) {
    double worst = 0;
    for (int i = 0; i < 1000000; i += lanes) {
        float x[lanes], y[lanes];
        for (int j = 0; j < lanes; j++) {
            x[j] = low + (high - low) * ((float) (i + j) / 1000000.0f);
        }
        vstore(y, f(vload(x)));
        for (int j = 0; j < lanes; j++) {
            const double want  = truth((double) x[j]);
            const double bound = (4 + 3 * fabs(exponent(x[j]))) * 0x1p-24 * fabs(want) + 0x1p-119 + floor * fabs(x[j]);
            const double error = fabs(y[j] - want);
            worst              = std::max(worst, error / bound);
            CHECK(error <= bound, "%s(%a) = %a, reference %a", name, x[j], y[j], want);
        }
    }
    printf("%s on [%g, %g]: %.2f of the bound\n", name, low, high, worst);
}

// A row cut anywhere at multiples of 64, or not at all, has the same bits; nothing beyond it is touched.
template <class F> void check_rows(const char * name, F f) {
    Random random;
    for (int n : { 1, 5, 15, 16, 17, 63, 64, 65, 200, 1000 }) {
        std::vector<float> gate(n), up(n), whole(n + 1, 7.0f), parts(n + 1, 7.0f);
        std::generate(gate.begin(), gate.end(), [&] { return 20 * random.real(); });
        std::generate(up.begin(), up.end(), [&] { return 3 * random.real(); });
        map_rows(gate.data(), up.data(), whole.data(), 0, n, f);
        for (int begin = 0; begin < n;) {
            const int end = std::min(n, begin + 64 * (1 + random.below(3)));
            map_rows(gate.data(), up.data(), parts.data(), begin, end, f);
            begin = end;
        }
        for (int i = 0; i < n; i++) {
            const float alone = f(vsplat(gate[i]), vsplat(up[i]))[0];
            CHECK(same_bits(whole[i], parts[i]) && same_bits(whole[i], alone), "%s n=%d i=%d", name, n, i);
        }
        CHECK(whole[n] == 7 && parts[n] == 7, "%s n=%d wrote beyond the row", name, n);
        map_row(gate.data(), whole.data(), 0, n, [&](vf32 x) { return f(x, vsplat(1.5f)); });
        CHECK(same_bits(whole[n - 1], f(vsplat(gate[n - 1]), vsplat(1.5f))[0]), "%s n=%d", name, n);
        CHECK(whole[n] == 7, "%s n=%d wrote beyond the row", name, n);
    }
}

void check_extremes() {
    const float inf = INFINITY, huge = std::numeric_limits<float>::max();
    for (auto f : { silu, gelu, gelu_quick, gelu_erf, sigmoid }) {
        CHECK(std::isnan(f(vsplat(NAN))[0]), "NaN stays");
        CHECK(fabs(f(vsplat(-inf))[0]) < 2e-8f && fabs(f(vsplat(-huge))[0]) < 2e-8f, "0 far below");
        CHECK(f != sigmoid ? f(vsplat(inf))[0] == inf && f(vsplat(huge))[0] == huge : f(vsplat(inf))[0] == 1, "above");
        CHECK(f(vsplat(0.0f))[0] == (f == sigmoid ? 0.5f : 0.0f), "0");
        CHECK(fabs(f(vsplat(1e-40f))[0] - (f == sigmoid ? 0.5f : 5e-41f)) < 1e-44f, "denormal");
    }
    CHECK(std::isnan(swiglu_oai(vsplat(NAN), vsplat(1), 1.7f, 7)[0]), "NaN");
    CHECK(std::isnan(swiglu_oai(vsplat(1), vsplat(NAN), 1.7f, 7)[0]), "NaN");
}

}  // namespace

int main() {
    const auto same  = [](double x) { return x; };
    const auto quick = [](double x) { return 1.702 * x; };
    const auto tanh  = [](double x) { return 1.6 * (x + 0.044715 * x * x * x); };
    sweep("silu", -90, 90, silu, silu_reference, same, 0);
    sweep("silu", -2, 2, silu, silu_reference, same, 0);
    sweep("sigmoid", -90, 90, sigmoid, sigmoid_reference, same, 0);
    sweep("gelu", -10, 20, gelu, gelu_reference, tanh, 0);
    sweep("gelu", -1, 1, gelu, gelu_reference, tanh, 0);
    sweep("gelu_quick", -51, 20, gelu_quick, gelu_quick_reference, quick, 0);
    sweep("gelu_erf", -20, 20, gelu_erf, gelu_erf_reference, [](double) { return -4.0 / 3; }, 0x1p-22);
    for (float up : { -9.0f, -0.5f, 3.0f, 9.0f }) {
        sweep(
            "swiglu_oai", -50, 20, [&](vf32 g) { return swiglu_oai(g, vsplat(up), 1.702f, 7); },
            [&](double g) { return swiglu_oai_reference(g, up, 1.702f, 7); }, quick, 0);
        sweep(
            "swiglu_clamp", -80, 20, [&](vf32 g) { return swiglu_clamp(g, vsplat(up), 7); },
            [&](double g) { return silu_reference(fmin(g, 7)) * fmax(-7, fmin(7, (double) up)); }, same, 0);
    }
    check_rows("swiglu", swiglu);
    check_rows("geglu", geglu);
    check_rows("geglu_erf", [](vf32 g, vf32 u) { return gelu_erf(g) * u; });
    check_extremes();
    const f32x16 g = splat16(0.7f), u = splat16(-3);
    CHECK(same_bits(swiglu16(g, u)[15], swiglu(vsplat(0.7f), vsplat(-3))[0]), "swiglu16");
    CHECK(same_bits(geglu16(g, u)[15], geglu(vsplat(0.7f), vsplat(-3))[0]), "geglu16");
    return report("glu");
}
