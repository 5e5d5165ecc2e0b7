/* Half-precision inputs widened to float on load, and gradients rounded back (to nearest, ties to even) on store, on CPU and GPU.
 *
 * Bit arithmetic, which every compiler vectorises over an array; the arithmetic of the loss itself never sees a half.
 */
#ifndef CATVAE_HALF_H
#define CATVAE_HALF_H
#include "catvae_kernels.h"
#include <string.h>

#ifdef __CUDACC__
#define CATVAE_BOTH __host__ __device__
#else
#define CATVAE_BOTH
#endif

CATVAE_BOTH static inline float bits_to_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
CATVAE_BOTH static inline uint32_t float_to_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CATVAE_BOTH static inline float float_of_f16(uint16_t h)
{
    const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13, exponent = magnitude & 0x0f800000;
    const uint32_t normal = magnitude + (112u << 23) + (exponent == 0x0f800000 ? 112u << 23 : 0); /* inf and NaN keep the top exponent */
    const float subnormal = bits_to_float(magnitude + (113u << 23)) - bits_to_float(113u << 23);
    return bits_to_float((exponent ? normal : float_to_bits(subnormal)) | (uint32_t)(h & 0x8000) << 16);
}

CATVAE_BOTH static inline uint16_t f16_of_float(float x)
{
    const uint32_t bits = float_to_bits(x), magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t small = float_to_bits(bits_to_float(magnitude) + bits_to_float(126u << 23)) - (126u << 23); /* below 2^-14 */
    const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
    const uint32_t large = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    return (uint16_t)(sign | (magnitude >= 0x47800000 ? large : magnitude < 0x38800000 ? small : normal));
}

CATVAE_BOTH static inline uint16_t bf16_of_float(float x)
{
    const uint32_t bits = float_to_bits(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* a NaN must not round to infinity */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#ifndef __cplusplus
static inline void widen(int64_t n, const uint16_t *x, int32_t type, float *y)
{
    if (type == CATVAE_F16)
        for (int64_t i = 0; i < n; ++i) y[i] = float_of_f16(x[i]);
    else
        for (int64_t i = 0; i < n; ++i) y[i] = bits_to_float((uint32_t)x[i] << 16);
}

static inline void narrow(int64_t n, const float *x, int32_t type, uint16_t *y)
{
    if (type == CATVAE_F16)
        for (int64_t i = 0; i < n; ++i) y[i] = f16_of_float(x[i]);
    else
        for (int64_t i = 0; i < n; ++i) y[i] = bf16_of_float(x[i]);
}

#endif

#endif
