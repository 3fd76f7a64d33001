//! The terminal while something is drawn on all of it: taken, and given back as it was, whatever happens.

use std::io::{self, BufWriter, IsTerminal, Stderr, Write, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
};
use crossterm::{execute, queue};
use klp_telemetry::Hold;
use nix::sys::signal::{Signal, raise};
use nix::unistd::{getpgrp, tcgetpgrp};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

/// Bytes of a frame that are written at once.
const FRAME: usize = 64 << 10;

/// Whether the terminal is ours, and has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Standard error's terminal, as ours to draw on. Standard output stays free for data.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stderr>>>,
    /// Whether keys can be read. Without, it is still drawn.
    pub keys: bool,
    logs: Option<Hold>,
}

impl Screen {
    /// Takes the terminal. `None`: there is none that can be drawn on, or it is another job's just now.
    ///
    /// # Errors
    /// The terminal's.
    pub fn take() -> io::Result<Option<Self>> {
        if !can_be_drawn_on() {
            return Ok(None);
        }
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                told(panic);
            }));
        });
        let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME, stderr()));
        let mut screen = Self {
            terminal: Terminal::new(backend)?,
            keys: false,
            logs: None,
        };
        screen.enter()?;
        Ok(Some(screen))
    }

    fn enter(&mut self) -> io::Result<()> {
        self.logs = Some(klp_telemetry::hold());
        TAKEN.store(true, Ordering::SeqCst);
        // Keys come from standard input, or else from the controlling terminal; there may be neither.
        self.keys = terminal::enable_raw_mode().is_ok();
        execute!(stderr(), EnterAlternateScreen, Hide)?;
        self.redraw()
    }

    /// Draws a frame, at the size that the terminal has now.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, frame: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        self.terminal.draw(|f| frame(f.area(), f.buffer_mut()))?;
        queue!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        io::Write::flush(self.terminal.backend_mut())
    }

    /// Has the next frame drawn anew, all of it: something else may have written here.
    ///
    /// # Errors
    /// The terminal's.
    pub fn redraw(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal where its cursor is, and wait for an answer among the keys.
        let size = self.terminal.size()?;
        self.terminal.resize(size.into())
    }

    /// Gives the terminal back to the shell, stops until the shell goes on with us, and takes it again.
    ///
    /// # Errors
    /// The terminal's.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        self.logs = None;
        raise(Signal::SIGSTOP)?;
        self.enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What could not be written could not be seen either.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stderr(), EndSynchronizedUpdate, LeaveAlternateScreen, Show);
        let _ = terminal::disable_raw_mode();
        let _ = stderr().flush();
    }
}

fn can_be_drawn_on() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    // A job in the background would be stopped. What isn't our controlling terminal has no such rules.
    let ours = tcgetpgrp(stderr()).map_or(true, |group| group == getpgrp());
    stderr().is_terminal() && !dumb && ours && terminal::size().is_ok_and(|(width, height)| width > 0 && height > 0)
}
