/* What both libraries share: limits of the sizes, argument checks, and the words for a status. */
#ifndef CATVAE_COMMON_H
#define CATVAE_COMMON_H
#include "catvae_kernels.h"

#ifndef CATVAE_ABI
#define CATVAE_ABI 0 /* the build passes the checksum of the header; a library built without it is refused */
#endif

static inline const char *own_status(int32_t status)
{
    switch (status) {
    case CATVAE_OK: return "success";
    case CATVAE_BAD_SIZE:
        return "sizes out of range: of the loss N >= 0, K >= 1 and D >= 1, each at most 2^28 and N*K*D at most 2^56;"
               " of norm_relu N >= 1, C a multiple of 16, N*C at most 2^40;"
               " of dropout_relu n >= 0, a multiple of 16 of at most 2^40, dropped from 0 to 2^32 - 1;"
               " of overlap_patches N >= 0, h, w and C >= 1, 2 (w + 1) C at most 8192, N*h*w*C at most 2^40";
    case CATVAE_NULL_POINTER: return "a required pointer is NULL";
    case CATVAE_BAD_THREADS: return "n_threads must be at least 1";
    case CATVAE_BAD_ISA: return "this machine does not offer the requested instruction set";
    case CATVAE_BAD_TYPE:
        return "type must be 0, 1 or 2 (0 alone in double precision, 0 or 2 of the layers), phase 0, 1 or 2, function 0 to 3";
    default: return "unknown status";
    }
}

static inline int32_t check(int64_t N, int64_t K, int64_t D, int32_t size, int32_t type, int32_t n_threads)
{
    const int64_t limit = INT64_C(1) << 28; /* with the product's bound, every count of bytes stays far inside int64 */
    if (N < 0 || K < 1 || D < 1 || N > limit || K > limit || D > limit) return CATVAE_BAD_SIZE;
    if ((double)N * (double)K * (double)D > (double)(INT64_C(1) << 56)) return CATVAE_BAD_SIZE;
    if ((size != 4 && size != 8) || type < 0 || type > 2 || (size == 8 && type != CATVAE_SAME)) return CATVAE_BAD_TYPE;
    return n_threads < 1 ? CATVAE_BAD_THREADS : CATVAE_OK;
}

#endif
