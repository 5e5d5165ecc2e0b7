/* One vector of LANES numbers: loads, stores, exp, log, expm1(x) - x, and the transpose between "a row is a sample" and "a lane is one".
 *
 * Included once per precision and instruction set with REAL, INTEGER, SUFFIX, REAL_IS_FLOAT, ISA and WIDTH defined; names carry SUFFIX
 * and ISA. Written with the compiler's vector extension, so that one text serves SSE, AVX2, AVX-512 and NEON. Intrinsics stand only where
 * no portable form comes near: masked loads and stores (a memcpy of run-time length costs more than the arithmetic around it), clamping to
 * the range of exp, and scaling by a power of two.
 */
typedef REAL FN(vec) __attribute__((vector_size(WIDTH)));
typedef INTEGER FN(ivec) __attribute__((vector_size(WIDTH)));
#define V FN(vec)
#define VI FN(ivec)
#define LANES ((int64_t)(WIDTH / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

INLINE V FN(load)(const REAL *p)
{
    V x;
    memcpy(&x, p, sizeof x); /* callers may hand us any alignment */
    return x;
}
INLINE void FN(store)(REAL *p, V x) { memcpy(p, &x, sizeof x); }
INLINE V FN(splat)(REAL x) { return x - (V){0}; }
INLINE V FN(select)(VI mask, V yes, V no) { return (V)((mask & (VI)yes) | (~mask & (VI)no)); }

/* sum += x y where `sum` is a register that stays one. Left to itself, gcc 12 lets one of the sums of a tile live in memory as soon as the
 * registers are nearly full, and its store and load stand between every two additions: AVX2 tiles then run at half speed. Volatile, so
 * that loads for the next rows do not move in between and take the last registers. */
#if CATVAE_X86_TABLE && WIDTH > 16 && !defined(__clang__)
#define ADD_PRODUCT(sum, x, y)                                                                \
    do { /* through a variable: an array whose elements are handed to assembly stays in memory */ \
        V sum_ = (sum);                                                                       \
        __asm__ volatile("vfmadd231" FMA_KIND " %2, %1, %0" : "+v"(sum_) : "v"(x), "vm"(y));  \
        (sum) = sum_;                                                                         \
    } while (0)
#else
#define ADD_PRODUCT(sum, x, y) ((sum) += (x) * (y))
#endif

/* Loads x here, and once: left alone, gcc would load it again for each of the products it takes part in. */
#if CATVAE_X86_TABLE
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#else
#define KEEP(x) ((void)0)
#endif

/* Fetches what lies `bytes` behind p, whether or not that is still ours; AHEAD: what a stream reads 16 cache lines later. Where long
 * arithmetic stands between the loads, and in virtual machines, the processor alone may not look that far. */
#define FETCH(p, bytes) __builtin_prefetch((const void *)((uintptr_t)(p) + (uintptr_t)(bytes)))
#define AHEAD(p) FETCH(p, 1024)

/* 0, 1, 2, ... */
INLINE VI FN(lane)(void)
{
    VI x = {0};
#pragma GCC unroll 16
    for (INTEGER j = 0; j < LANES; ++j) x[j] = j;
    return x;
}

/* The first `count` elements, at most LANES, zero in the lanes beyond; nothing past them is touched. */
INLINE V FN(load_part)(const REAL *p, int64_t count)
{
    if (count >= LANES) return FN(load)(p);
#if CATVAE_X86_TABLE && WIDTH == 64 && REAL_IS_FLOAT
    return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#elif CATVAE_X86_TABLE && WIDTH == 64
    return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), p);
#elif CATVAE_X86_TABLE && WIDTH == 32 && REAL_IS_FLOAT
    return (V)_mm256_maskload_ps(p, (__m256i)(FN(lane)() < (INTEGER)count));
#elif CATVAE_X86_TABLE && WIDTH == 32
    return (V)_mm256_maskload_pd(p, (__m256i)(FN(lane)() < (INTEGER)count));
#else
    V x = {0};
    for (int64_t j = 0; j < count; ++j) x[j] = p[j];
    return x;
#endif
}
INLINE void FN(store_part)(REAL *p, V x, int64_t count)
{
    if (count >= LANES) {
        FN(store)(p, x);
        return;
    }
#if CATVAE_X86_TABLE && WIDTH == 64 && REAL_IS_FLOAT
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)x);
#elif CATVAE_X86_TABLE && WIDTH == 64
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1), (__m512d)x);
#elif CATVAE_X86_TABLE && WIDTH == 32 && REAL_IS_FLOAT
    _mm256_maskstore_ps(p, (__m256i)(FN(lane)() < (INTEGER)count), (__m256)x);
#elif CATVAE_X86_TABLE && WIDTH == 32
    _mm256_maskstore_pd(p, (__m256i)(FN(lane)() < (INTEGER)count), (__m256d)x);
#else
    for (int64_t j = 0; j < count; ++j) p[j] = x[j];
#endif
}

/* Sum of the lanes: halves are added to halves, four dependent additions instead of sixteen. */
INLINE REAL FN(sum)(V x)
{
    REAL t[LANES];
    memcpy(t, &x, sizeof x);
    for (int64_t w = LANES / 2; w > 0; w /= 2)
        for (int64_t j = 0; j < w; ++j) t[j] += t[j + w];
    return t[0];
}

#if REAL_IS_FLOAT
/* x between -105 and 89, where exp has long reached 0 and infinity; NaN stays. */
INLINE V FN(clamp)(V x)
{
#if CATVAE_X86_TABLE && WIDTH == 64
    return (V)_mm512_max_ps(_mm512_set1_ps(-105.0f), _mm512_min_ps(_mm512_set1_ps(89.0f), (__m512)x));
#elif CATVAE_X86_TABLE && WIDTH == 32
    return (V)_mm256_max_ps(_mm256_set1_ps(-105.0f), _mm256_min_ps(_mm256_set1_ps(89.0f), (__m256)x));
#else
    return FN(select)(x > 89.0f, FN(splat)(89.0f), FN(select)(x < -105.0f, FN(splat)(-105.0f), x));
#endif
}
/* Cody-Waite: x = n ln 2 + r with |r| <= ln 2 / 2; returns r, NaN for NaN. The rounding by a magic constant (1.5 * 2^23) needs
 * associativity to be respected: never compile this with -fassociative-math. */
INLINE V FN(reduce)(V x, V *n)
{
    const float magic = 12582912.0f;
    const V clamped = FN(clamp)(x);
    *n = (clamped * 1.44269504f + magic) - magic;
    return (clamped - *n * 0.693145751953125f) - *n * 1.42860677e-06f;
}
/* (exp(r) - 1 - r) / r^2, coefficients of the Cephes library. */
INLINE V FN(exp_tail)(V r)
{
    V y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    return y * r + 5.0000001201e-1f;
}
/* y 2^n, right for 2^128 and for subnormal results too; a NaN y stays NaN whatever n is. */
INLINE V FN(scale)(V y, V n)
{
#if CATVAE_X86_TABLE && WIDTH == 64
    return (V)_mm512_scalef_ps((__m512)y, (__m512)n);
#else
    n = FN(select)(n == n, n, (V){0}); /* converting a NaN is undefined */
    const VI exponent = __builtin_convertvector(n, VI), half = exponent >> 1;
    y = y * (V)((half + 127) << 23); /* in two factors, each of which is a normal number */
    return y * (V)((exponent - half + 127) << 23);
#endif
}
#endif

/* exp. Float: at most 2 ulp against fp64 on every finite input (tests/kernels/test_elementary.py measures it), +inf above 88.73, gradual
 * underflow to 0 at -103.97, NaN to NaN. */
INLINE V FN(exp)(V x)
{
#if REAL_IS_FLOAT
    V n;
    const V r = FN(reduce)(x, &n);
    return FN(scale)(FN(exp_tail)(r) * (r * r) + r + 1.0f, n);
#else
    V y;
    for (int64_t j = 0; j < LANES; ++j) y[j] = exp(x[j]);
    return y;
#endif
}

/* expm1(x), and through `gap` the difference expm1(x) - x, which keeps its relative precision near 0 where the subtraction would not. */
INLINE V FN(expm1)(V x, V *gap)
{
#if REAL_IS_FLOAT
    V n;
    const V r = FN(reduce)(x, &n), above = FN(exp_tail)(r) * (r * r);
    const V half = FN(scale)(FN(splat)(0.5f), n); /* of 2^n, which may itself be 2^128 */
    const V y = 2.0f * (half * (r + above) + (half - 0.5f));
    *gap = FN(select)(n == 0.0f, above, y - FN(select)(x > 89.0f, FN(splat)(89.0f), x)); /* inf, where inf - x would be NaN */
    return y;
#else
    V y;
    for (int64_t j = 0; j < LANES; ++j) y[j] = expm1(x[j]);
    V series = x * (1.0 / 720) + 1.0 / 120;
    series = x * series + 1.0 / 24;
    series = x * series + 1.0 / 6;
    *gap = FN(select)(x * x < 1e-6, x * x * (x * series + 0.5), y - FN(select)(x > 710.0, FN(splat)(710.0), x)); /* as above */
    return y;
#endif
}

/* Natural logarithm of normal positive numbers; NaN to NaN. Float: coefficients of the Cephes library, within 2 ulp. */
INLINE V FN(log)(V x)
{
#if REAL_IS_FLOAT
    const VI bits = (VI)x;
    V mantissa = (V)((bits & 0x007fffff) | 0x3f800000), exponent = __builtin_convertvector((bits >> 23) - 127, V);
    const VI upper = mantissa > 1.41421356f;
    mantissa = FN(select)(upper, mantissa * 0.5f, mantissa) - 1.0f;
    exponent = FN(select)(upper, exponent + 1.0f, exponent);
    V y = mantissa * 7.0376836292e-2f - 1.1514610310e-1f;
    y = y * mantissa + 1.1676998740e-1f;
    y = y * mantissa - 1.2420140846e-1f;
    y = y * mantissa + 1.4249322787e-1f;
    y = y * mantissa - 1.6668057665e-1f;
    y = y * mantissa + 2.0000714765e-1f;
    y = y * mantissa - 2.4999993993e-1f;
    y = y * mantissa + 3.3333331174e-1f;
    const V square = mantissa * mantissa;
    y = y * mantissa * square - exponent * 2.12194440e-4f - square * 0.5f;
    y = mantissa + y + exponent * 0.693359375f;
    return FN(select)(x == x, y, x);
#else
    V y;
    for (int64_t j = 0; j < LANES; ++j) y[j] = log(x[j]);
    return y;
#endif
}

/* Transpose LANES vectors in place: log2(LANES) rounds of exchanges between rows h apart. */
INLINE void FN(transpose)(V *x)
{
#if defined(__clang__)
    V y[LANES];
    for (int64_t i = 0; i < LANES; ++i)
        for (int64_t j = 0; j < LANES; ++j) y[i][j] = x[j][i];
    for (int64_t i = 0; i < LANES; ++i) x[i] = y[i];
#else
#pragma GCC unroll 4
    for (INTEGER h = 1; h < LANES; h *= 2) {
        VI low, high;
#pragma GCC unroll 16
        for (INTEGER j = 0; j < LANES; ++j) {
            low[j] = j & h ? (INTEGER)LANES + j - h : j;
            high[j] = j & h ? (INTEGER)LANES + j : j + h;
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i)
            if (!(i & h)) {
                const V a = x[i], b = x[i + h];
                x[i] = __builtin_shuffle(a, b, low);
                x[i + h] = __builtin_shuffle(a, b, high);
            }
    }
#endif
}

/* The transpose of LANES rows of LANES numbers, rows `from_row` and `to_row` numbers apart. A function of its own, whose addresses all find a
 * register. */
static __attribute__((noinline)) void FN(turn)(const REAL *from, int64_t from_row, REAL *to, int64_t to_row)
{
    V x[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) x[i] = FN(load)(from + i * from_row);
    FN(transpose)(x);
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) FN(store)(to + i * to_row, x[i]);
}

#define GROUP (2 * LANES) /* samples that go through the forward pass together: two vectors a row, for enough independent sums */

/* rows (GROUP, count) -> lanes (count, GROUP); only `valid` rows exist, the others read as zero. */
INLINE void FN(rows_to_lanes)(const REAL *rows, int64_t valid, int64_t count, REAL *lanes)
{
    for (int64_t half = 0; half < 2; ++half)
        for (int64_t c = 0; c < count; c += LANES) {
            const int64_t here = count - c < LANES ? count - c : LANES;
            for (int64_t i = 0; i < LANES; ++i) /* of the next group */
                FETCH(rows, ((half * LANES + i + GROUP) * count + c) * (int64_t)sizeof(REAL));
            if (here == LANES && valid >= (half + 1) * LANES) {
                FN(turn)(rows + half * LANES * count + c, count, lanes + c * GROUP + half * LANES, GROUP);
                continue;
            }
            V x[LANES];
            for (int64_t i = 0; i < LANES; ++i) {
                const int64_t row = half * LANES + i;
                x[i] = row < valid ? FN(load_part)(rows + row * count + c, here) : (V){0};
            }
            FN(transpose)(x);
            for (int64_t j = 0; j < here; ++j) FN(store)(lanes + (c + j) * GROUP + half * LANES, x[j]);
        }
}

/* lanes (count, GROUP) -> the `valid` first rows of (GROUP, count). */
INLINE void FN(lanes_to_rows)(const REAL *lanes, int64_t valid, int64_t count, REAL *rows)
{
    for (int64_t half = 0; half < 2; ++half)
        for (int64_t c = 0; c < count; c += LANES) {
            const int64_t here = count - c < LANES ? count - c : LANES;
            if (here == LANES && valid >= (half + 1) * LANES) {
                FN(turn)(lanes + c * GROUP + half * LANES, GROUP, rows + half * LANES * count + c, count);
                continue;
            }
            V x[LANES];
            for (int64_t j = 0; j < LANES; ++j) x[j] = j < here ? FN(load)(lanes + (c + j) * GROUP + half * LANES) : (V){0};
            FN(transpose)(x);
            for (int64_t i = 0; i < LANES && half * LANES + i < valid; ++i)
                FN(store_part)(rows + (half * LANES + i) * count + c, x[i], here);
        }
}

#if REAL_IS_FLOAT
static void FN(elementary)(int32_t function, int64_t n, const REAL *x, REAL *y)
{
    for (int64_t i = 0; i < n; i += LANES) {
        const V in = FN(load_part)(x + i, n - i);
        V gap;
        const V growth = FN(expm1)(in, &gap);
        FN(store_part)(y + i, function == 0 ? FN(exp)(in) : function == 1 ? growth : function == 2 ? gap : FN(log)(in), n - i);
    }
}
#endif
