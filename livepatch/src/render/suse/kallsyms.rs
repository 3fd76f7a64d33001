//! Symbols of kernels without klp-convert: a table of `klpe_` pointers, filled when the livepatch is loaded and, for a
//! module's functions, whenever that module is.

use std::fmt::Write as _;

use super::super::condition::{split, under};
use super::super::input::{Provider, SourceFile};
use crate::report::ExternalizedSymbol;

/// What follows the code. `prefix`: of the `init` and `cleanup` it defines.
pub fn resolution(file: &SourceFile, prefix: &str, module_mutex: bool) -> String {
    let mut out =
        String::from("#include <linux/kernel.h>\n#include <linux/module.h>\n#include \"../kallsyms_relocs.h\"\n\n");
    if file.in_module() != Some(false) {
        out.push_str(&patched_module(file));
        out.push('\n');
    }
    out.push_str("static struct klp_kallsyms_reloc klp_funcs[] = {\n");
    for symbol in &file.externalized {
        for (provider, condition) in split(file.providers(symbol)) {
            out.push_str(&under(condition.as_deref(), &entry(symbol, &provider)));
        }
    }
    out.push_str("};\n\n");
    match file.in_module() {
        Some(false) => out.push_str(&at_once(prefix, module_mutex)),
        Some(true) => out.push_str(&with_module(prefix, module_mutex)),
        None => {
            let _ = write!(
                out,
                "#ifdef LP_MODULE\n\n{}\n#else /* !LP_MODULE */\n\n{}\nvoid {prefix}_cleanup(void)\n{{\n}}\n\n#endif /* LP_MODULE */\n",
                with_module(prefix, module_mutex),
                at_once(prefix, module_mutex),
            );
        }
    }
    out
}

/// `LP_MODULE`: the module whose functions are replaced, where it is one.
fn patched_module(file: &SourceFile) -> String {
    let objects = file
        .platforms
        .iter()
        .map(|(arch, facts)| (*arch, facts.object.as_loaded()));
    let objects = split(objects.collect());
    let modules = objects.into_iter().filter(|(object, _)| !object.is_vmlinux());
    modules
        .map(|(module, condition)| under(condition.as_deref(), &format!("#define LP_MODULE \"{module}\"\n")))
        .collect()
}

fn entry(symbol: &ExternalizedSymbol, provider: &Provider) -> String {
    let mut words = vec![
        format!("\"{}\"", symbol.symbol),
        format!("(void *)&{}", symbol.variable),
    ];
    if !provider.object.is_vmlinux() {
        words.push(format!("\"{}\"", provider.object));
    } else if provider.sympos > 0 {
        words.push("NULL".to_owned());
    }
    if provider.sympos > 0 {
        words.push(provider.sympos.to_string());
    }
    format!("\t{{ {} }},\n", words.join(", "))
}

/// Without a module to wait for.
fn at_once(prefix: &str, module_mutex: bool) -> String {
    let body = if module_mutex {
        format!("\tint err;\n\n{}\treturn err;\n", locked("\t"))
    } else {
        "\treturn klp_resolve_kallsyms_relocs(klp_funcs, ARRAY_SIZE(klp_funcs));\n".to_owned()
    };
    format!("int {prefix}_init(void)\n{{\n{body}}}\n")
}

fn locked(indent: &str) -> String {
    format!(
        "{indent}mutex_lock(&module_mutex);\n\
         {indent}err = __klp_resolve_kallsyms_relocs(klp_funcs, ARRAY_SIZE(klp_funcs));\n\
         {indent}mutex_unlock(&module_mutex);\n"
    )
}

fn with_module(prefix: &str, module_mutex: bool) -> String {
    let resolve = if module_mutex {
        locked("\t")
    } else {
        "\terr = klp_resolve_kallsyms_relocs(klp_funcs, ARRAY_SIZE(klp_funcs));\n".to_owned()
    };
    let begin = if module_mutex {
        "\tint err;\n\n"
    } else {
        "\tstruct module *mod;\n\tint err;\n\n\terr = klp_kallsyms_relocs_init();\n\tif (err)\n\t\treturn err;\n\n"
    };
    let loaded_already = if module_mutex {
        "\tmutex_lock(&module_mutex);\n\
         \tif (find_module(LP_MODULE))\n\
         \t\terr = __klp_resolve_kallsyms_relocs(klp_funcs, ARRAY_SIZE(klp_funcs));\n\
         \tmutex_unlock(&module_mutex);\n"
    } else {
        "\trcu_read_lock_sched();\n\
         \tmod = (*klpe_find_module)(LP_MODULE);\n\
         \tif (mod && !try_module_get(mod))\n\
         \t\tmod = NULL;\n\
         \trcu_read_unlock_sched();\n\
         \tif (mod) {\n\
         \t\terr = klp_resolve_kallsyms_relocs(klp_funcs, ARRAY_SIZE(klp_funcs));\n\
         \t\tmodule_put(mod);\n\
         \t}\n"
    };
    format!(
        "/* A module that comes after this livepatch has its symbols looked up before it runs. */\n\
         static int lp_module_event(struct notifier_block *nb, unsigned long event, void *data)\n\
         {{\n\
         \tstruct module *coming = data;\n\
         \tint err;\n\n\
         \tif (event != MODULE_STATE_COMING || strcmp(coming->name, LP_MODULE))\n\
         \t\treturn NOTIFY_DONE;\n\
         {resolve}\
         \tWARN(err, \"%s: symbols of %s not found; the livepatch must not run\\n\", __func__, LP_MODULE);\n\
         \treturn notifier_from_errno(err);\n\
         }}\n\n\
         static struct notifier_block lp_module_nb = {{\n\
         \t.notifier_call = lp_module_event,\n\
         \t/* Behind all that prepare the module. */\n\
         \t.priority = INT_MIN + 1,\n\
         }};\n\n\
         int {prefix}_init(void)\n\
         {{\n\
         {begin}\
         \terr = register_module_notifier(&lp_module_nb);\n\
         \tif (err)\n\
         \t\treturn err;\n\n\
         \t/* A module that came before has no event any more. */\n\
         {loaded_already}\
         \tif (err)\n\
         \t\tunregister_module_notifier(&lp_module_nb);\n\
         \treturn err;\n\
         }}\n\n\
         void {prefix}_cleanup(void)\n\
         {{\n\
         \tunregister_module_notifier(&lp_module_nb);\n\
         }}\n"
    )
}
