/* The pieces of the loss in reading order, and of the layers, for one precision; then the names they were written with are free
 * again. */
#include "vector.h"

#include "stage.h"

#include "rows.h"

#include "forward.h"

#include "backward.h"

#include "dense.h"

#if REAL_IS_FLOAT
#include "norm.h"

#include "dropout.h"

#include "patches.h"

#include "bernoulli.h"
#endif

#undef REAL
#undef INTEGER
#undef SUFFIX
#undef REAL_IS_FLOAT
#undef FMA_KIND
#undef V
#undef VI
#undef LANES
#undef INLINE
#undef KEEP
#undef AHEAD
#undef FETCH
#undef ADD_PRODUCT
#undef GROUP
#undef RECHECK
#undef FRESH
#undef PANEL
#undef HALF
