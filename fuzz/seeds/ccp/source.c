static int klpp_f(struct s *s, int (*cb)(int));
static noinline int
klpp_f(struct s *s, int (*cb)(int))
{
	return (*klpe_g)(s) + cb(1);
}
static __always_inline __attribute__((cold)) void klpp_g(void) { }
