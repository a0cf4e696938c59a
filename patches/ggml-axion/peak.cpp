// The machine's peaks and the plain code that `axion-llm bench kernels` compares with, compiled as the kernels are.
#include "axion.h"
#include "peak.h"
#include "scalar.h"

double axion_measure_peak(uint32_t kind, double seconds) {
    using namespace axion;
    switch (kind) {
    case 4:
        return scalar_rate(scalar::soft_max, seconds);
    case 5:
        return scalar_rate(scalar::rms_norm, seconds);
    case 6:
        return scalar_rate(scalar::swiglu, seconds);
    default:
        return measure_peak(kind, seconds);
    }
}
