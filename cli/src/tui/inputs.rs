//! What happens to a program that draws on a terminal: keys, another size, signals, and the time that passes.
#![expect(unsafe_code, reason = "gives signals back to their default actions")]

use std::io;
use std::time::Duration;

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use nix::sys::signal::{SigHandler, Signal, kill, signal as set_handler};
use nix::unistd::{Pid, getppid, getsid};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_stream::StreamExt;

/// How often it is looked whether there is something new to draw.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub enum Input {
    Key(KeyEvent),
    /// Something may have to be drawn: time has passed.
    Tick,
    /// All has to be drawn anew.
    Redraw,
    /// The terminal is to be given back until we are continued.
    Suspend,
    /// Ctrl-C, or a signal that ends us.
    Leave,
}

pub struct Inputs {
    keys: Option<EventStream>,
    ticks: Interval,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
    stop: unix::Signal,
}

impl Inputs {
    /// # Errors
    /// Signals can't be listened to.
    pub fn new(keys: bool) -> io::Result<Self> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            keys: keys.then(EventStream::new),
            ticks,
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup: unix::signal(SignalKind::hangup())?,
            stop: unix::signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?,
        })
    }

    pub async fn next(&mut self) -> Input {
        loop {
            let event = tokio::select! {
                event = next_key(&mut self.keys) => event,
                _ = self.ticks.tick() => return Input::Tick,
                _ = self.interrupt.recv() => return Input::Leave,
                _ = self.terminate.recv() => return Input::Leave,
                _ = self.hangup.recv() => return Input::Leave,
                _ = self.stop.recv() => return Input::Suspend,
            };
            match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('c') if control => return Input::Leave,
                        KeyCode::Char('l') if control => return Input::Redraw,
                        KeyCode::Char('z') if control => stop_job(),
                        _ => return Input::Key(key),
                    }
                }
                Some(Ok(Event::Resize(..))) => return Input::Redraw,
                Some(Ok(_)) => {}
                // Nobody types any more.
                Some(Err(_)) | None => self.keys = None,
            }
        }
    }
}

async fn next_key(keys: &mut Option<EventStream>) -> Option<io::Result<Event>> {
    match keys {
        Some(keys) => keys.next().await,
        None => std::future::pending().await,
    }
}

/// Stops the whole job, as the terminal would have done; we hear of it as of any signal. Where no shell could go on with
/// us, nothing happens.
fn stop_job() {
    let shell = getsid(Some(getppid())).is_ok_and(|session| getsid(None) == Ok(session));
    if shell {
        // Those who can't be stopped go on.
        let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
    }
}

impl Drop for Inputs {
    /// Signals do again what they did before: whatever follows can be ended by them.
    fn drop(&mut self) {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP] {
            // SAFETY: the default action runs no code of ours.
            let _ = unsafe { set_handler(signal, SigHandler::SigDfl) };
        }
    }
}
