/* The pieces of the loss in reading order, for one precision; then the names they were written with are free again. */
#include "vector.h"

#include "stage.h"

#include "rows.h"

#include "forward.h"

#include "backward.h"

#include "dense.h"

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
#undef ADD_PRODUCT
#undef GROUP
#undef RECHECK
#undef PANEL
#undef HALF
