//! Declarations that stand in no source: pointers, prototypes, tracepoint calls; and warnings about the names behind them.

use std::collections::BTreeSet;

use super::closure::{Pending, Planner};
use super::declare;
use super::fate::Fate;
use super::plan::{Context, Generated};
use super::refs::refs_of_type;
use super::unit::Unit;
use crate::extract::Externalized;

impl Planner<'_, '_> {
    pub(super) fn trace(&mut self, name: &str, event: &str) {
        if self.pending.contains_key(name) {
            return;
        }
        let Some(decl) = self.unit.definition_index(name) else {
            return;
        };
        let d = &self.unit.decls[decl];
        let (file, start, ty) = (d.file, d.start, d.cursor.ty());
        let own = self
            .unit
            .own
            .contains(&file)
            .then(|| self.unit.item_at(file, start))
            .flatten();
        let position = match own {
            Some(item) => (item, 2, 2 * decl + 1),
            None => self
                .unit
                .known_after(file)
                .map_or((0, 0, 2 * decl + 1), |i| (i, 2, 2 * decl + 1)),
        };
        if self.unit.files.get(file).text()[start..]
            .split('(')
            .next()
            .is_some_and(|w| w.contains("CONDITION"))
        {
            self.plan.warnings.push(format!(
                "{name}: the tracepoint's condition is not tested by the livepatch's copy of the call"
            ));
        }
        self.pending.insert(
            name.to_owned(),
            Pending::Trace {
                event: event.to_owned(),
                decl,
            },
        );
        self.first_use.insert(name.to_owned(), position);
        let before = (position.0, position.1, position.2 - 1);
        let context = own.map_or(Context::Header(name.to_owned()), Context::Item);
        for t in refs_of_type(self.unit, ty).all {
            self.reference(&context, &t);
        }
        let mut wanted = vec![format!("__tracepoint_{event}")];
        if !name.ends_with("_enabled") {
            wanted.push(format!("__traceiter_{event}"));
        }
        for symbol in wanted {
            match self.fates.of(self.unit, &symbol) {
                Fate::External(object) => self.pointer(&context, &symbol, &symbol, object),
                _ => self.as_is(&context, &symbol),
            }
            let first = self.first_use.entry(symbol).or_insert(before);
            *first = (*first).min(before);
        }
    }

    /// Warns of names that do not say for sure what they mean.
    pub(super) fn doubtful_names(&mut self) {
        let symbols = self.fates.symbols();
        for e in self.plan.externals.iter().filter(|e| e.object == self.request.object) {
            let n = symbols.occurrences(&e.symbol);
            if n > 1 {
                self.plan.warnings.push(format!(
                    "{}: {n} symbols of {} have this name; the loader needs the position of the right one",
                    e.symbol, e.object
                ));
            }
        }
        let copied: BTreeSet<String> = self.fates.copied().collect();
        for variant in symbols.variants(&copied) {
            let base = variant.split('.').next().unwrap_or_default();
            self.plan.warnings.push(format!(
                "{base} is copied: the compiler kept it only as {variant}, with another interface"
            ));
        }
    }

    pub(super) fn write_pending(&mut self) {
        for (name, pending) in std::mem::take(&mut self.pending) {
            let position = self.first_use.get(&name).copied().unwrap_or((0, 0, 0));
            let text = match &pending {
                Pending::Pointer { symbol, object } => {
                    let variable = format!("klpe_{symbol}");
                    self.plan.externals.push(Externalized {
                        symbol: symbol.clone(),
                        object: object.clone(),
                        variable: variable.clone(),
                    });
                    self.pointer_text(symbol, &variable)
                }
                Pending::Local { pointer, variable } => {
                    self.plan.externals.push(Externalized {
                        symbol: name.clone(),
                        object: self.request.object.clone(),
                        variable: variable.clone(),
                    });
                    Some(pointer.clone())
                }
                Pending::Prototype => self
                    .unit
                    .definition(&name)
                    .or_else(|| self.unit.declarations(&name).next())
                    .and_then(|d| {
                        if d.is_function() {
                            declare::prototype(d.cursor, &name)
                        } else {
                            declare::declare(&declare::spell(d.cursor.ty()), &name)
                        }
                        .map(|p| format!("extern {p};"))
                    }),
                Pending::Forward(prefix) => self.unit.definition(&name).and_then(|d| {
                    let storage = if d.is_static() && *prefix != "klpp_" {
                        "static "
                    } else {
                        ""
                    };
                    declare::prototype(d.cursor, &format!("{prefix}{name}")).map(|p| format!("{storage}{p};"))
                }),
                Pending::Trace { event, decl } => {
                    let external = |symbol: String| {
                        if self.plan.externals.iter().any(|e| e.symbol == symbol) {
                            format!("(*klpe_{symbol})")
                        } else {
                            symbol
                        }
                    };
                    trace_text(
                        self.unit,
                        *decl,
                        &name,
                        &external(format!("__tracepoint_{event}")),
                        &external(format!("__traceiter_{event}")),
                    )
                }
            };
            match text {
                Some(text) => self.plan.generated.push(Generated { position, text }),
                None => self
                    .plan
                    .warnings
                    .push(format!("{name}: its type can't be written down")),
            }
        }
    }

    pub(super) fn pointer_text(&self, symbol: &str, variable: &str) -> Option<String> {
        if self.unit.declared_outside(symbol) {
            return Some(format!("static typeof({symbol}) *{variable};"));
        }
        // The definition tells most (an array's length); a declaration will do.
        let d = self
            .unit
            .definition(symbol)
            .or_else(|| self.unit.declarations(symbol).next())?;
        declare::pointer(d.cursor, d.is_function(), variable).or_else(|| {
            let source = self.unit.files.get(d.file);
            let at = d.cursor.spelled_at()?.offset as usize;
            let head = source
                .text()
                .get(d.start..at)?
                .trim()
                .trim_start_matches("static")
                .trim_start()
                .to_owned();
            let rest = source.text().get(at + symbol.len()..d.end)?;
            let dims = rest.split('=').next().unwrap_or("").trim();
            Some(if dims.is_empty() {
                format!("static {head} *{variable};")
            } else {
                format!("static {head} (*{variable}){dims};")
            })
        })
    }
}

/// A call of a tracepoint the livepatch can't link to: the test its key makes at run time, the call through its iterator.
fn trace_text(unit: &Unit<'_>, decl: usize, name: &str, tracepoint: &str, call: &str) -> Option<String> {
    let d = &unit.decls[decl];
    let head = declare::prototype(d.cursor, &format!("klpr_{name}"))?;
    let key = format!("static_key_enabled(&{tracepoint}.key)");
    if name.ends_with("_enabled") {
        return Some(format!("static inline {head}\n{{\n\treturn {key};\n}}"));
    }
    let mut args = vec!["NULL".to_owned()];
    args.extend(d.cursor.params().into_iter().map(|p| p.name()));
    Some(format!(
        "static inline {head}\n{{\n\tif (unlikely({key})) {{\n\t\tpreempt_disable_notrace();\n\t\t{call}({});\n\t\tpreempt_enable_notrace();\n\t}}\n}}",
        args.join(", ")
    ))
}
