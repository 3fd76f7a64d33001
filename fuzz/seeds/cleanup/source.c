#define __KERNEL__ 1
#define KBUILD_MODNAME "demo"
#include "/k/src/include/linux/list.h"
#include "/k/src/drivers/demo/../demo/demo.h"
#include "/k/src/include/linux/kconfig.h"
#include <trace/define_trace.h>
/* klp-ccp: from /k/src/drivers/demo/a.c */
static inline __attribute__((__gnu_inline__)) int *(*klpe_f)(void) __attribute__((__noreturn__));
extern int *(*klpe_f)(void);
static struct static_key_false (*klpe_key);
static int __init klpp_f(void)
{
	static void *__UNIQUE_ID___addressable_klpe_key7 = (void *)&(*klpe_key);
	if (static_branch_unlikely(&(*klpe_key)))
		return 1;
	return static_key_false(&own) + '\'' + "\"/k/obj/"[0];
}
