/* log: the library's own remarks; silent unless PLAIT_LOG or plait_set_log() ask. */
#ifndef PL_BASE_LOG_H
#define PL_BASE_LOG_H

#include <plait/plait.h>

void pl_log(plait_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
