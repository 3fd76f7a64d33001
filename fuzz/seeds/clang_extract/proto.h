#include <linux/types.h>
int klpp_f(struct s *s, int (*cb)(int));
static inline __attribute__((section("x"))) long (*klpe_g)(void);
struct s { int a[2]; } __attribute__((packed));
