/* One instruction set: every piece in both precisions. Included once per entry of the dispatch table, with ISA, WIDTH and TILE defined. */
#define FN(name) JOIN(name, SUFFIX, ISA)

#define REAL float
#define INTEGER int32_t
#define SUFFIX f32
#define REAL_IS_FLOAT 1
#define FMA_KIND "ps"
#include "pieces.h"

#define REAL double
#define INTEGER int64_t
#define SUFFIX f64
#define REAL_IS_FLOAT 0
#define FMA_KIND "pd"
#include "pieces.h"

#undef FN
