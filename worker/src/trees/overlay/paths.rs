//! Turns paths of a tree into paths of its view, and back.

use std::path::{Component, Path, PathBuf};

use crate::extract::CompileCommand;

/// A tree and its view.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub tree_src: PathBuf,
    pub tree_obj: PathBuf,
    pub view_src: PathBuf,
}

impl Paths {
    /// The object folder to use: the view itself for a kernel that was built in its source folder.
    pub fn view_obj(&self) -> &Path {
        match self.tree_obj == self.tree_src {
            true => &self.view_src,
            false => &self.tree_obj,
        }
    }

    /// The command with which the tree's build compiles a file, as it compiles the view's.
    pub fn command(&self, command: &CompileCommand) -> CompileCommand {
        let args = command.args.iter().map(|arg| self.arg(arg, &command.directory));
        CompileCommand {
            compiler: command.compiler.clone(),
            args: args.collect(),
            directory: self.directory(&command.directory),
        }
    }

    fn directory(&self, directory: &Path) -> PathBuf {
        match directory.strip_prefix(&self.tree_src) {
            Ok(inner) if !self.is_built(directory) => self.view_src.join(inner),
            _ => directory.to_owned(),
        }
    }

    /// Whether a path is in an object folder that is within the source folder, which the view has no copy of.
    fn is_built(&self, path: &Path) -> bool {
        self.tree_obj != self.tree_src && path.starts_with(&self.tree_obj)
    }

    fn arg(&self, arg: &str, directory: &Path) -> String {
        let (Some(from), Some(to)) = (self.tree_src.to_str(), self.view_src.to_str()) else {
            return arg.to_owned();
        };
        let path = &arg[option_len(arg)..];
        if path.starts_with('/') {
            let inside = self.is_built(&plain(Path::new(path)));
            return if inside {
                arg.to_owned()
            } else {
                replaced(arg, from, to)
            };
        }
        // Relative to a folder that is itself within the view, or to one that the view is not around.
        if self.directory(directory) == directory {
            let full = plain(&directory.join(path));
            if let Ok(inner) = full.strip_prefix(&self.tree_src)
                && !self.is_built(&full)
                && looks_like_a_path(path)
            {
                return format!("{}{}", &arg[..option_len(arg)], self.view_src.join(inner).display());
            }
        }
        replaced(arg, from, to)
    }

    /// What a tool said about the view, as if it had said it about the tree.
    pub fn to_tree(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let real = self.view_src.canonicalize().ok();
        for view in [Some(&self.view_src), real.as_ref()].into_iter().flatten() {
            if let (Some(view), Some(tree)) = (view.to_str(), self.tree_src.to_str()) {
                text = replaced(&text, view, tree);
            }
        }
        text
    }
}

/// The length of an option's name that a path may follow without a blank.
fn option_len(arg: &str) -> usize {
    const OPTIONS: [&str; 8] = [
        "-I",
        "-iquote",
        "-isystem",
        "-idirafter",
        "-include",
        "-imacros",
        "-isysroot",
        "-L",
    ];
    let longest = OPTIONS
        .iter()
        .filter(|option| arg.starts_with(**option))
        .map(|o| o.len())
        .max();
    longest.unwrap_or(0)
}

fn looks_like_a_path(text: &str) -> bool {
    text == ".." || text.starts_with("../") || text.starts_with("./../")
}

/// A path without `.` and `..`, told by its text alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

/// Replaces the root of paths wherever one begins: `/a/linux` is neither in `/b/a/linux` nor in `/a/linux-obj`.
pub(crate) fn replaced(text: &str, from: &str, to: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = "";
    while let Some(at) = rest.find(from) {
        let after = &rest[at + from.len()..];
        let ends = !after.starts_with(|c: char| c.is_alphanumeric() || "_-.+~@".contains(c));
        let word_at = [before, &rest[..at]].concat();
        let begins = begins_path(&word_at);
        out.push_str(&rest[..at]);
        let (put, taken) = match begins && ends {
            true => (to, from.len()),
            // A root begins with `/`, one byte.
            false => (&rest[at..=at], 1),
        };
        out.push_str(put);
        before = &text[..text.len() - rest.len() + at + taken];
        rest = &rest[at + taken..];
    }
    out.push_str(rest);
    out
}

/// Whether a path may begin after this text: after what is no part of a name, or after an option's letters.
fn begins_path(before: &str) -> bool {
    let word = before
        .rsplit(|c: char| !(c.is_alphanumeric() || "_-./+~@".contains(c)))
        .next()
        .unwrap_or_default();
    let is_option = |word: &str| word.starts_with('-') && !word.contains(['/', '.']);
    word.is_empty() || is_option(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(tree: (&str, &str), directory: &str, args: &[&str]) -> (PathBuf, Vec<String>) {
        let paths = Paths {
            tree_src: tree.0.into(),
            tree_obj: tree.1.into(),
            view_src: "/s/view".into(),
        };
        let command = CompileCommand {
            compiler: "gcc".into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            directory: directory.into(),
        };
        let mapped = paths.command(&command);
        (mapped.directory, mapped.args)
    }

    #[test]
    fn a_tree_with_an_object_folder_keeps_that() {
        let args = [
            "-I/k/linux-6/include",
            "-I./include/generated",
            "-I/k/linux-6-obj/x",
            "-I",
            "/k/linux-6",
            "-fmacro-prefix-map=/k/linux-6/=",
            "-I/b/k/linux-6/x",
            "-DX=\"/k/linux-6/a\"",
            "-I../linux-6/arch/x86",
            "-Wp,-MMD,a/.b.d",
            "/k/linux-6/a/b.c",
        ];
        let (directory, args) = mapped(("/k/linux-6", "/k/linux-6-obj"), "/k/linux-6-obj", &args);
        assert_eq!(directory, Path::new("/k/linux-6-obj"));
        assert_eq!(
            args,
            [
                "-I/s/view/include",
                "-I./include/generated",
                "-I/k/linux-6-obj/x",
                "-I",
                "/s/view",
                "-fmacro-prefix-map=/s/view/=",
                "-I/b/k/linux-6/x",
                "-DX=\"/s/view/a\"",
                "-I/s/view/arch/x86",
                "-Wp,-MMD,a/.b.d",
                "/s/view/a/b.c",
            ]
        );
    }

    #[test]
    fn a_kernel_built_in_place_moves_as_a_whole() {
        let args = ["-I./include", "-I/k/linux/x", "-o", "a/b.o", "a/b.c"];
        let (directory, args) = mapped(("/k/linux", "/k/linux"), "/k/linux", &args);
        assert_eq!(directory, Path::new("/s/view"));
        assert_eq!(args, ["-I./include", "-I/s/view/x", "-o", "a/b.o", "a/b.c"]);
    }

    #[test]
    fn an_object_folder_within_the_source_stays() {
        let args = [
            "-I../include",
            "-I./include",
            "-I/k/linux/build/x",
            "../a/b.c",
            "-o",
            "a/b.o",
        ];
        let (directory, args) = mapped(("/k/linux", "/k/linux/build"), "/k/linux/build", &args);
        assert_eq!(directory, Path::new("/k/linux/build"));
        assert_eq!(
            args,
            [
                "-I/s/view/include",
                "-I./include",
                "-I/k/linux/build/x",
                "/s/view/a/b.c",
                "-o",
                "a/b.o"
            ]
        );
    }

    #[test]
    fn what_tools_say_is_about_the_tree() {
        let paths = Paths {
            tree_src: "/k/linux".into(),
            tree_obj: "/k/linux".into(),
            view_src: "/s/view".into(),
        };
        let said = "In file included from /s/view/a.h:1,\n  gcc -I/s/view/x /s/viewer /s/view";
        let told = "In file included from /k/linux/a.h:1,\n  gcc -I/k/linux/x /s/viewer /k/linux";
        assert_eq!(paths.to_tree(said), told);
    }

    proptest::proptest! {
        #[test]
        fn there_and_back_is_the_same(text in "([a-z]|/k/linux|[-:= ./I\n]){0,30}") {
            let there = replaced(&text, "/k/linux", "/s/view");
            proptest::prop_assert_eq!(replaced(&there, "/s/view", "/k/linux"), text);
        }
    }
}
