//! `patched_funcs.csv`: which functions a livepatch replaces, as SUSE's build reads it to fill its `klp_func` tables.
//!
//! A line for each function, words separated by blanks, no header, blank lines are nothing:
//! `<object> <function>[,<sympos>] <replacement>[ <condition>]`. The object is the name the kernel knows it by. The
//! position tells namesakes in one object apart. The condition goes to the end of the line and is put behind an `#if`.

use std::fmt;
use std::str::FromStr;

use crate::names::{FunctionName, InvalidName, ObjectName, quoted};

/// Longest accepted file and line, in bytes.
const MAX_FILE: usize = 4 << 20;
const MAX_LINE: usize = 4 << 10;

/// One replaced function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PatchedFunc {
    pub object: ObjectName,
    pub function: FunctionName,
    /// Which of the object's functions of that name, from 1 in the order of its symbol table; 0: there is but one.
    pub sympos: u32,
    pub replacement: FunctionName,
    pub condition: Option<Condition>,
}

/// A C preprocessor condition, such as `IS_ENABLED(CONFIG_X)` or `defined(CONFIG_S390)`: one line that can't do anything but
/// be true or false.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition(String);

impl Condition {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Condition {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        // Neither a backslash that would continue the line, nor quotes, nor another directive.
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"_ ()!&|<>=+-*/%~^?:,".contains(&c);
        let comment = s.contains("/*") || s.contains("//");
        let trimmed = s.trim();
        if trimmed.is_empty() || s.len() > 1024 || comment || !s.bytes().all(plain) {
            return Err(InvalidName(format!(
                "condition {} is not like IS_ENABLED(CONFIG_X) || defined(CONFIG_S390)",
                quoted(s)
            )));
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A line of the file, without its newline.
impl fmt::Display for PatchedFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object.kernel_name(), self.function)?;
        if self.sympos > 0 {
            write!(f, ",{}", self.sympos)?;
        }
        write!(f, " {}", self.replacement)?;
        if let Some(condition) = &self.condition {
            write!(f, " {condition}")?;
        }
        Ok(())
    }
}

impl FromStr for PatchedFunc {
    type Err = InvalidName;

    fn from_str(line: &str) -> Result<Self, InvalidName> {
        if line.len() > MAX_LINE {
            return Err(InvalidName(format!("{} bytes long; at most {MAX_LINE}", line.len())));
        }
        let (object, rest) = word(line);
        let (function, rest) = word(rest);
        let (replacement, condition) = word(rest);
        if replacement.is_empty() {
            return Err(InvalidName(format!(
                "{} is not `object function[,position] replacement [condition]`",
                quoted(line)
            )));
        }
        let (function, sympos) = match function.split_once(',') {
            None => (function, 0),
            Some((function, text)) => {
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                let sympos = text.parse().ok().filter(|_| digits);
                let sympos = sympos.ok_or_else(|| InvalidName(format!("position {} is not a number", quoted(text))))?;
                (function, sympos)
            }
        };
        let condition = Some(condition).filter(|text| !text.is_empty());
        Ok(Self {
            // People write its file's name, which may have dashes.
            object: object.parse::<ObjectName>()?.kernel_name().parse()?,
            function: function.parse()?,
            sympos,
            replacement: replacement.parse()?,
            condition: condition.map(str::parse).transpose()?,
        })
    }
}

/// The first word, and what follows it, without blanks around.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Reads a file.
///
/// # Errors
/// The first line that is not of the form, with its number.
pub fn parse(text: &str) -> Result<Vec<PatchedFunc>, InvalidName> {
    if text.len() > MAX_FILE {
        return Err(InvalidName(format!("{} bytes long; at most {MAX_FILE}", text.len())));
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines
        .map(|(line, number)| line.parse().map_err(|e| InvalidName(format!("line {number}: {e}"))))
        .collect()
}

/// The file: a line for each function.
pub fn print(functions: &[PatchedFunc]) -> String {
    functions.iter().map(|function| format!("{function}\n")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let text = "\nsnd_pcm f klpp_f\n\nvmlinux g,2 klpp_g\r\n\tdrm  h \t klpp_h   defined(CONFIG_S390) || defined(CONFIG_PPC64) \n";
        let read = parse(text).unwrap();
        let [f, g, h] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(
            (f.object.as_str(), f.function.as_str(), f.sympos, &f.condition),
            ("snd_pcm", "f", 0, &None)
        );
        assert_eq!((g.sympos, g.replacement.as_str()), (2, "klpp_g"));
        assert_eq!(
            h.condition.as_ref().unwrap().as_str(),
            "defined(CONFIG_S390) || defined(CONFIG_PPC64)"
        );
        assert_eq!(
            print(&read),
            "snd_pcm f klpp_f\nvmlinux g,2 klpp_g\ndrm h klpp_h defined(CONFIG_S390) || defined(CONFIG_PPC64)\n"
        );
    }

    #[test]
    fn objects_are_called_as_the_kernel_calls_them() {
        assert_eq!(
            "snd-pcm f klpp_f".parse::<PatchedFunc>().unwrap().to_string(),
            "snd_pcm f klpp_f"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (bad, told) in [
            ("vmlinux f", "`vmlinux f` is not `object function"),
            ("net/x.ko f klpp_f", "module `net/x.ko`"),
            ("vmlinux f,x klpp_f", "position `x`"),
            ("vmlinux f,+1 klpp_f", "position `+1`"),
            ("vmlinux f, klpp_f", "position ``"),
            ("vmlinux f,4294967296 klpp_f", "position `4294967296`"),
            ("vmlinux f-g klpp_f", "function `f-g`"),
            ("vmlinux f klpp_f 1\\", "condition `1\\\\`"),
            ("vmlinux f klpp_f 1 /* x", "condition `1 /* x`"),
            ("vmlinux f klpp_f #include", "condition `#include`"),
        ] {
            let error = parse(&format!("a b c\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line 2: {told}")), "{error}");
        }
        assert!(parse(&format!("a b {}", "c".repeat(MAX_LINE))).is_err());
    }

    prop_compose! {
        fn any_function()(
            object in "[a-z][a-z0-9_]{0,8}",
            function in "[a-z_][a-z0-9_]{0,8}",
            sympos in prop_oneof![Just(0u32), any::<u32>()],
            replacement in "klpp_[a-z0-9_]{0,8}",
            condition in proptest::option::of("[A-Z(!][A-Z_()&| ]{0,20}[A-Z)]"),
        ) -> PatchedFunc {
            PatchedFunc {
                object: object.parse().unwrap(),
                function: function.parse().unwrap(),
                sympos,
                replacement: replacement.parse().unwrap(),
                condition: condition.map(|c| c.parse().unwrap()),
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_printed_is_read(functions in proptest::collection::vec(any_function(), 0..5)) {
            prop_assert_eq!(parse(&print(&functions)).unwrap(), functions);
        }

        #[test]
        fn no_text_makes_it_panic(text in "([a-z_,0-9 \t]{0,12}|[\n\\\\(é]|.){0,8}") {
            if let Ok(read) = parse(&text) {
                prop_assert_eq!(parse(&print(&read)).unwrap(), read);
            }
        }
    }
}
