static bool same_object(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* Where a function is that modules can't link to; 0 if the kernel does not tell. */
static unsigned long function_address(const char *name)
{
	/* A probe that is never armed: registering it looks the name up. */
	struct kprobe probe = {
		.symbol_name = name,
		.flags = KPROBE_FLAG_DISABLED,
	};
	char place[KSYM_SYMBOL_LEN];
	unsigned long address, offset;

	if (register_kprobe(&probe))
		return 0;
	address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	/* It may stand behind the function's first instructions: NAME+0x4/0x80. */
	sprint_symbol(place, address);
	if (sscanf(strchrnul(place, '+'), "+%lx", &offset) != 1)
		return 0;
	return address - offset;
}

/* Takes in one symbol of an object, in the order of its symbol table. */
static void meet(struct livepatch_symbol *symbols, const char *object, const char *name,
		 unsigned long address)
{
	struct livepatch_symbol *symbol;

	for (symbol = symbols; symbol->name; symbol++) {
		if (!same_object(symbol->object, object) || strcmp(symbol->name, name))
			continue;
		symbol->found++;
		if (symbol->found == max(symbol->position, 1UL))
			*symbol->pointer = (void *)address;
	}
}

static int meet_in_vmlinux(void *symbols, const char *name, unsigned long address)
{
	meet(symbols, NULL, name, address);
	return 0;
}

/* What kernels before 6.4 call; before 5.12, for modules' symbols too. */
static int meet_in_image(void *symbols, const char *name, struct module *owner,
			 unsigned long address)
{
	if (!owner)
		meet(symbols, NULL, name, address);
	return 0;
}

static int search_vmlinux(struct livepatch_symbol *symbols)
{
	typeof(kallsyms_on_each_symbol) *each = (void *)function_address("kallsyms_on_each_symbol");

	if (!each)
		return -ENOENT;
	each(__builtin_choose_expr(
		     __builtin_types_compatible_p(typeof(each), int (*)(typeof(&meet_in_image), void *)),
		     meet_in_image, meet_in_vmlinux),
	     symbols);
	return 0;
}

static void search_module(struct module *mod, struct livepatch_symbol *symbols)
{
	const struct mod_kallsyms *table;
	unsigned int i;

	preempt_disable();
	table = rcu_dereference_sched(mod->kallsyms);
	for (i = 0; i < table->num_symtab; i++) {
		const Elf_Sym *entry = &table->symtab[i];

		if (entry->st_shndx != SHN_UNDEF)
			meet(symbols, mod->name, table->strtab + entry->st_name, entry->st_value);
	}
	preempt_enable();
}

static int search_other_module(const char *name, struct livepatch_symbol *symbols)
{
	typeof(find_module) *find = (void *)function_address("find_module");
	struct module *mod;

	if (!find)
		return -ENOENT;
	rcu_read_lock_sched();
	mod = find(name);
	if (mod && !try_module_get(mod))
		mod = NULL;
	rcu_read_unlock_sched();
	if (!mod)
		return -ENOENT;
	search_module(mod, symbols);
	module_put(mod);
	return 0;
}

static int find_symbols(struct klp_object *obj, struct livepatch_symbol *symbols)
{
	struct livepatch_symbol *symbol, *before;
	int err;

	for (symbol = symbols; symbol->name; symbol++)
		symbol->found = 0;
	for (symbol = symbols; symbol->name; symbol++) {
		/* All symbols of an object are found at once. */
		for (before = symbols; !same_object(before->object, symbol->object); before++)
			;
		if (before != symbol)
			continue;
		if (!symbol->object) {
			err = search_vmlinux(symbols);
		} else if (same_object(symbol->object, obj->name)) {
			search_module(obj->mod, symbols);
			err = 0;
		} else {
			err = search_other_module(symbol->object, symbols);
		}
		if (err) {
			pr_err("the symbols of %s can't be looked up (%d)\n",
			       symbol->object ?: "vmlinux", err);
			return err;
		}
	}
	for (symbol = symbols; symbol->name; symbol++) {
		if (symbol->position ? symbol->found >= symbol->position : symbol->found == 1)
			continue;
		pr_err("%s has %lu symbols named %s; the livepatch needs number %lu (0: the only one)\n",
		       symbol->object ?: "vmlinux", symbol->found, symbol->name, symbol->position);
		return -ENOENT;
	}
	return 0;
}

/* Before an object's functions are replaced, when it is loaded or the livepatch is. */
static int before_patching(struct klp_object *obj)
{
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(sources); i++) {
		if (!same_object(sources[i].object, obj->name))
			continue;
		err = find_symbols(obj, sources[i].symbols);
		if (err)
			return err;
	}
	return 0;
}
