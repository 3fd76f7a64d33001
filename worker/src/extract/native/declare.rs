//! Writes declarations from types: `klpe_` pointers, prototypes and tracepoint calls.

use super::libclang::{Cursor, Type};

/// `TYPE NAME` as a C declarator, or None if the type has no name to write (an anonymous structure).
pub fn declare(ty: &str, name: &str) -> Option<String> {
    if ty.contains(" at ") || ty.contains("(unnamed") || ty.contains("(anonymous") {
        return None;
    }
    if let Some(at) = ty.find("(*") {
        // A pointer to a function or array: the name goes behind the innermost star and its qualifiers.
        let close = ty[at..].find(')')? + at;
        return Some(format!("{}{}{}", &ty[..close], space(&ty[..close], name), &ty[close..]));
    }
    if let Some(at) = ty.find('[') {
        return Some(format!(
            "{}{}{}",
            ty[..at].trim_end(),
            space(ty[..at].trim_end(), name),
            &ty[at..]
        ));
    }
    Some(format!("{ty}{}", space(ty, name)))
}

fn space(before: &str, name: &str) -> String {
    if before.ends_with('*') || before.ends_with('(') {
        name.to_owned()
    } else {
        format!(" {name}")
    }
}

/// A type as it can be written anywhere: without expressions in it.
pub fn spell(ty: Type<'_>) -> String {
    let text = ty.spelling();
    if text.contains("typeof") {
        ty.canonical().spelling()
    } else {
        text
    }
}

/// The prototype `RESULT NAME(PARAMETERS)` of a function type; parameter names where given.
pub fn prototype(function: Cursor<'_>, name: &str) -> Option<String> {
    let ty = function.ty();
    let params = function.params();
    let mut list = Vec::new();
    for (i, t) in ty.args().into_iter().enumerate() {
        let name = params.get(i).map(|p| p.name()).unwrap_or_default();
        list.push(declare(&spell(t), &name)?.trim_end().to_owned());
    }
    if ty.is_variadic() {
        list.push("...".into());
    }
    let list = if list.is_empty() {
        "void".to_owned()
    } else {
        list.join(", ")
    };
    let result = result_text(ty)?;
    Some(format!("{result}{}({list})", space(&result, name)))
}

fn result_text(ty: Type<'_>) -> Option<String> {
    let result = spell(ty.result()?);
    declare(&result, "")?;
    Some(if result.contains("(*") {
        format!("typeof({result})")
    } else {
        result
    })
}

/// `static TYPE *klpe_x;` for something no kept header declares.
pub fn pointer(cursor: Cursor<'_>, function: bool, variable: &str) -> Option<String> {
    if function {
        return prototype(cursor, &format!("(*{variable})")).map(|p| format!("static {p};"));
    }
    let ty = spell(cursor.ty());
    declare(&ty, "")?;
    Some(if ty.contains(['[', '(']) {
        format!("static typeof({ty}) *{variable};")
    } else {
        format!(
            "static {};",
            declare(&format!("{ty} *").replace("* *", "**"), variable)?
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_where_c_wants_them() {
        assert_eq!(declare("struct a *", "x").as_deref(), Some("struct a *x"));
        assert_eq!(declare("int (*)(void *)", "f").as_deref(), Some("int (*f)(void *)"));
        assert_eq!(declare("unsigned long[4]", "v").as_deref(), Some("unsigned long v[4]"));
        assert_eq!(
            declare("const char *const", "s").as_deref(),
            Some("const char *const s")
        );
        assert_eq!(declare("struct (unnamed struct at /x/y.c:1:2)", "s"), None);
    }
}
