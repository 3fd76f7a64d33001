//! Splits a shell command line into words, as much of the shell's grammar as compile commands use.

/// The words of a line that holds one simple command.
///
/// # Errors
/// An open quote, or an operator such as `;` outside quotes.
pub fn split(line: &str) -> Result<Vec<String>, String> {
    let mut all = commands(line)?;
    match all.len() {
        0 => Ok(Vec::new()),
        1 => Ok(all.remove(0)),
        n => Err(format!("{n} commands where one was expected")),
    }
}

/// The simple commands of a line, split at `;`, `&`, `|` and their doubled forms; redirections end a command's words.
///
/// # Errors
/// An open quote.
pub fn commands(line: &str) -> Result<Vec<Vec<String>>, String> {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is left open".into()),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("a double quote is left open".into()),
                        },
                        Some(c) => word.push(c),
                        None => return Err("a double quote is left open".into()),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            c if c.is_whitespace() => words.extend(word.take()),
            ';' | '&' | '|' | '(' | ')' | '<' | '>' => {
                words.extend(word.take());
                if !words.is_empty() {
                    all.push(std::mem::take(&mut words));
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.take());
    if !words.is_empty() {
        all.push(words);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quotes_join_and_operators_split() {
        let got = commands(r#"a 'b c'"d\"e"\ f; g -DX='"y"' && h>out"#).unwrap();
        assert_eq!(
            got,
            [vec!["a", "b cd\"e f"], vec!["g", "-DX=\"y\""], vec!["h"], vec!["out"]]
        );
        assert_eq!(split("gcc '' x").unwrap(), ["gcc", "", "x"]);
        assert!(commands("a 'b").is_err());
        assert!(split("a; b").is_err());
    }
}
