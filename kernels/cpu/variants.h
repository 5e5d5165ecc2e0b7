/* One instruction set: the body in both precisions. Included once per entry of the dispatch table, with ISA defined. */
#define REAL float
#define INTEGER int32_t
#define SUFFIX f32
#define REAL_IS_FLOAT 1
#include "mixture_kl_body.h"
#undef REAL
#undef INTEGER
#undef SUFFIX
#undef REAL_IS_FLOAT

#define REAL double
#define INTEGER int64_t
#define SUFFIX f64
#define REAL_IS_FLOAT 0
#include "mixture_kl_body.h"
#undef REAL
#undef INTEGER
#undef SUFFIX
#undef REAL_IS_FLOAT
