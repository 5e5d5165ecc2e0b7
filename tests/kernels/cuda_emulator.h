/* Just enough CUDA to run the kernels on a CPU: blocks one after the other, the threads of a block as fibers that take turns.
 *
 * A fiber runs until it meets a barrier; when all have, the next round begins. Shared memory is static, since blocks never overlap.
 * Slow and exact: it finds wrong indices, missing barriers between unequal phases, and barriers that not all threads of a block meet, not
 * races within a phase.
 */
#ifndef CUDA_EMULATOR_H
#define CUDA_EMULATOR_H
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <vector>

#define EMULATED_DIVERGENCE 720 /* what `launch` returns where some threads of a block met another barrier than others */

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct Index {
    int64_t x;
};
static Index threadIdx, blockIdx;

namespace emulator {
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> finished;
static std::vector<char> waits; /* what each fiber met last: nothing, __syncthreads, one of the two halves of a shuffle */
static bool diverged;
static double slots[THREADS];
static std::function<void()> body;

static void enter()
{
    body();
    finished[(size_t)threadIdx.x] = 1;
    swapcontext(&fibers[(size_t)threadIdx.x], &scheduler);
}
static void yield(char barrier)
{
    const int64_t me = threadIdx.x;
    waits[(size_t)me] = barrier;
    swapcontext(&fibers[(size_t)me], &scheduler);
    threadIdx.x = me;
}
static void run_block(const std::function<void()> &kernel)
{
    const size_t stack = 64 << 10;
    static std::vector<char> stacks(THREADS * stack);
    body = kernel;
    fibers.assign(THREADS, ucontext_t());
    finished.assign(THREADS, 0);
    waits.assign(THREADS, 0);
    for (size_t t = 0; t < THREADS; ++t) {
        getcontext(&fibers[t]);
        fibers[t].uc_stack.ss_sp = &stacks[t * stack];
        fibers[t].uc_stack.ss_size = stack;
        fibers[t].uc_link = nullptr;
        makecontext(&fibers[t], enter, 0);
    }
    for (bool again = true; again;) {
        again = false;
        for (size_t t = 0; t < THREADS; ++t)
            if (!finished[t]) {
                threadIdx.x = (int64_t)t;
                waits[t] = 0;
                swapcontext(&scheduler, &fibers[t]);
                again |= !finished[t];
            }
        for (size_t t = 0; t < THREADS; ++t) diverged |= waits[t] != waits[0];
    }
}
} // namespace emulator

static inline void __syncthreads() { emulator::yield(1); }

template <class R>
static R __shfl_xor_sync(unsigned, R x, int lane)
{
    emulator::slots[threadIdx.x] = (double)x;
    emulator::yield(2);
    const R other = (R)emulator::slots[threadIdx.x ^ lane];
    emulator::yield(3);
    return other;
}

template <class... Parameters, class... Arguments>
static int32_t launch(void (*kernel)(Parameters...), int64_t blocks, void *, Arguments... arguments)
{
    for (int64_t b = 0; b < blocks; ++b) {
        blockIdx.x = b;
        emulator::run_block([=] { kernel(arguments...); });
    }
    const bool failed = emulator::diverged;
    emulator::diverged = false;
    return failed ? EMULATED_DIVERGENCE : CATVAE_OK;
}

typedef int cudaError_t;
enum { cudaSuccess, cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
static inline const char *cudaGetErrorString(cudaError_t) { return "an error of CUDA"; }
static inline cudaError_t cudaGetDevice(int *device) { return *device = 0, cudaSuccess; }
static inline cudaError_t cudaDeviceGetAttribute(int *value, int, int) { return *value = 0, cudaSuccess; }

#endif
