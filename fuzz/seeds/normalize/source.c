/* a.c:12 */
#include "/k/src/include/linux/kconfig.h"
#define __auto_type int
static int __UNIQUE_ID_x12; // one \
 two
struct d e = { .lineno = 12, .s = "a  /* b */ \"" };
int  f(void) { return 'x' / 2; p.lineno = 3; }
