/* What every kernel here is written with: threads and launches, elementary functions in both precisions, element types of the inputs.
 *
 * Only the plainest CUDA is used (shared memory, __syncthreads, __shfl_xor_sync, all threads of a block in step), so that a test can
 * compile the same source for the CPU with CATVAE_EMULATE and run it where there is no GPU (tests/kernels/cuda_emulator.h).
 */
#ifndef CATVAE_DEVICE_CUH
#define CATVAE_DEVICE_CUH
#include "half.h"

#ifdef CATVAE_EMULATE
#include "cuda_emulator.h"
#else
#include <cuda_runtime.h>

/* Enqueue `blocks` blocks of THREADS threads; the status of the launch, 0 or a cudaError_t. */
template <class... Parameters, class... Arguments>
static int32_t launch(void (*kernel)(Parameters...), int64_t blocks, void *stream, Arguments... arguments)
{
    if (blocks == 0) return CATVAE_OK; /* an empty grid is an error to CUDA */
    if (blocks > INT32_MAX) return CATVAE_BAD_SIZE;
    kernel<<<(unsigned)blocks, THREADS, 0, (cudaStream_t)stream>>>(arguments...);
    return (int32_t)cudaGetLastError();
}
#endif

#define DEVICE static __device__ __forceinline__

DEVICE float exp_(float x) { return expf(x); }
DEVICE double exp_(double x) { return exp(x); }
DEVICE float expm1_(float x) { return expm1f(x); }
DEVICE double expm1_(double x) { return expm1(x); }
DEVICE float log_(float x) { return logf(x); }
DEVICE double log_(double x) { return log(x); }

/* expm1(x) - x with its relative precision kept near 0, where the subtraction would lose it: Taylor to x^9 below 1/2 and 1/100. */
template <class R>
DEVICE R expm1_gap(R x)
{
    const R near = sizeof(R) == 4 ? (R)0.5 : (R)0.01;
    if (x > (sizeof(R) == 4 ? (R)89 : (R)710)) return exp_(x); /* inf, where inf - inf would be NaN */
    if (!(x < near && x > -near)) return expm1_(x) - x;
    R y = x * (R)(1.0 / 362880) + (R)(1.0 / 40320);
    y = y * x + (R)(1.0 / 5040);
    y = y * x + (R)(1.0 / 720);
    y = y * x + (R)(1.0 / 120);
    y = y * x + (R)(1.0 / 24);
    y = y * x + (R)(1.0 / 6);
    y = y * x + (R)0.5;
    return y * x * x;
}

/* m, v and logits may be halves: they are widened here on load, their gradients rounded on store. */
struct F16 {
    uint16_t bits;
};
struct BF16 {
    uint16_t bits;
};
DEVICE float widened(float x) { return x; }
DEVICE double widened(double x) { return x; }
DEVICE float widened(F16 x) { return float_of_f16(x.bits); }
DEVICE float widened(BF16 x) { return bits_to_float((uint32_t)x.bits << 16); }
DEVICE void put(float *p, float x) { *p = x; }
DEVICE void put(double *p, double x) { *p = x; }
DEVICE void put(F16 *p, float x) { p->bits = f16_of_float(x); }
DEVICE void put(BF16 *p, float x) { p->bits = bf16_of_float(x); }

/* Over the 32 threads of a warp; the exchange pattern is fixed, so the result is the same from run to run. */
template <class R>
DEVICE R warp_sum(R x)
{
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
template <class R>
DEVICE R warp_max(R x)
{
    for (int step = 16; step > 0; step /= 2) {
        const R y = __shfl_xor_sync(0xffffffffu, x, step);
        x = y > x ? y : x;
    }
    return x;
}

#endif
