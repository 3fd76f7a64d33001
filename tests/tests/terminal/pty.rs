//! `klp-farm` on a pseudo-terminal, and what a terminal would show of it.

use std::io::{Read, Write};
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klp_tests::{Farm, command_on, wait_until};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

const LIMIT: Duration = Duration::from_secs(120);

/// What came out of the program: the screen that a terminal would show, and all bytes.
struct Shown {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

pub struct Pty {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    shown: Arc<Mutex<Shown>>,
}

fn size(rows: u16, cols: u16) -> PtySize {
    PtySize {
        rows,
        cols,
        ..PtySize::default()
    }
}

fn some(lines: u16) -> NonZero<u16> {
    NonZero::new(lines).expect("a terminal has some")
}

impl Pty {
    /// `klp-farm` with these arguments, words of a shell, on a terminal of this size.
    pub fn farm(farm: &Farm, args: &str, rows: u16, cols: u16) -> Self {
        Self::shell(farm, &format!("exec $KLP_FARM {args}"), rows, cols)
    }

    /// A line for a shell, which finds the program in `$KLP_FARM`.
    pub fn shell(farm: &Farm, line: &str, rows: u16, cols: u16) -> Self {
        let mut command = CommandBuilder::new("bash");
        command.args(["--noprofile", "--norc", "-c", line]);
        Self::start(farm, command, rows, cols)
    }

    /// A shell that somebody types into.
    pub fn interactive(farm: &Farm, rows: u16, cols: u16) -> Self {
        let mut command = CommandBuilder::new("bash");
        command.args(["--noprofile", "--norc", "-i"]);
        Self::start(farm, command, rows, cols)
    }

    fn start(farm: &Farm, mut command: CommandBuilder, rows: u16, cols: u16) -> Self {
        command.cwd(farm.dir.path());
        command.env("TERM", "xterm-256color");
        command.env("KLP_FARM", command_on(None, "klp-farm").get_program());
        command.env("KLP_FARM_COORDINATOR", &farm.url);
        command.env_remove("NO_COLOR");
        let pair = native_pty_system()
            .openpty(size(rows, cols))
            .expect("a pseudo-terminal");
        let child = pair.slave.spawn_command(command).expect("bash starts");
        drop(pair.slave);
        let shown = Arc::new(Mutex::new(Shown {
            parser: vt100::Parser::new(some(rows), some(cols), 1000),
            bytes: Vec::new(),
        }));
        let mut output = pair.master.try_clone_reader().expect("a terminal is read");
        let seen = shown.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last one who has the terminal open closes it.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut shown = seen.lock().unwrap_or_else(PoisonError::into_inner);
                shown.parser.process(&bytes[..count]);
                shown.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            child,
            keys: pair.master.take_writer().expect("a terminal is typed on"),
            master: pair.master,
            shown,
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn text(&self) -> String {
        self.shown().parser.screen().contents()
    }

    pub fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.shown().bytes).into_owned()
    }

    /// Whether it draws on a screen of its own.
    pub fn is_drawn_on(&self) -> bool {
        self.shown().parser.screen().alternate_screen()
    }

    /// That the shell's screen is there again, and all is as it was.
    pub fn is_restored(&self) {
        let shown = self.shown();
        let screen = shown.parser.screen();
        assert!(
            !screen.alternate_screen() && !screen.hide_cursor(),
            "{}",
            screen.contents()
        );
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is open");
        self.keys.flush().expect("the terminal is open");
    }

    pub fn resize(&mut self, rows: u16, cols: u16) {
        self.shown().parser.screen_mut().set_size(some(rows), some(cols));
        self.master.resize(size(rows, cols)).expect("another size");
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.process_id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid)
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until the screen is like that.
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let start = std::time::Instant::now();
        loop {
            let text = self.text();
            if is(&text) {
                return text;
            }
            assert!(
                start.elapsed() < LIMIT,
                "waited in vain until {what}; the screen:\n{text}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn until_shown(&self, words: &str) -> String {
        self.until(&format!("{words:?} is shown"), |text| text.contains(words))
    }

    /// Waits for the end, and for all that was said until then.
    pub fn ends(&mut self) -> u32 {
        let code = wait_until(LIMIT, "klp-farm ends", || self.child.try_wait().expect("waiting works"));
        let mut before = usize::MAX;
        wait_until(LIMIT, "all is read", || {
            let now = self.shown().bytes.len();
            std::thread::sleep(Duration::from_millis(50));
            (std::mem::replace(&mut before, now) == now).then_some(())
        });
        code.exit_code()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
