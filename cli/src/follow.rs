//! Follows a livepatch until it ends: a live matrix on a terminal, lines elsewhere, JSON lines for machines.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use klp_livepatch::names::LivepatchName;
use klp_proto::v1;
use tonic::Code;

use crate::client::{Client, by_name};
use crate::cmd::status;
use crate::matrix::Matrix;
use crate::output::{self, Failed, Mode};
use klp_proto::view;

const RECONNECT: Duration = Duration::from_secs(1);

/// Follows until the livepatch has ended, then shows how.
///
/// # Errors
/// [`Failed::NotAllSucceeded`] if it did not end in success everywhere, [`Failed::Interrupted`] on Ctrl-C.
pub async fn follow(client: &Client, name: &LivepatchName, mode: Mode) -> Result<(), Failed> {
    let mut screen = Screen::new(mode);
    if let Screen::Live(live) = &mut screen {
        // All platforms from the first moment on; events tell of those that something has happened to.
        let tasks = client.get(name).await?.tasks;
        live.tasks.extend(tasks.into_iter().map(|task| (task.id.clone(), task)));
    }
    let ended = tokio::select! {
        ended = events(client, name, &mut screen) => ended,
        _ = tokio::signal::ctrl_c() => {
            screen.clear();
            eprintln!("interrupted; {name} goes on. Follow it again with `klp-farm watch {name}`, end it with `klp-farm cancel {name}`");
            return Err(Failed::Interrupted);
        }
    };
    screen.clear();
    let ended = ended?;
    if mode == Mode::Table {
        let response = client.get(name).await?;
        status::print(client, name, response, Mode::Table).await?;
    }
    match ended.state() {
        v1::LivepatchState::Succeeded => Ok(()),
        _ => Err(Failed::NotAllSucceeded),
    }
}

/// Reads events to the last one, reconnecting with the cursor whenever the stream breaks.
async fn events(client: &Client, name: &LivepatchName, screen: &mut Screen) -> Result<v1::Livepatch, Failed> {
    let mut cursor = 0;
    loop {
        let request = v1::WatchRequest {
            livepatch: Some(by_name(name)),
            after_event: cursor,
        };
        let broken = match client.livepatches().watch(request).await {
            Ok(response) => {
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            cursor = event.number;
                            let ended = event.ended.clone();
                            screen.show(event)?;
                            if let Some(livepatch) = ended {
                                return Ok(livepatch);
                            }
                        }
                        Ok(None) => break tonic::Status::unavailable("the coordinator closed the stream"),
                        Err(status) => break status,
                    }
                }
            }
            // Nothing was seen yet: whoever typed the command should know at once.
            Err(status) if cursor == 0 => return Err(client.explain(status)),
            Err(status) => status,
        };
        if !matches!(
            broken.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::ResourceExhausted
        ) {
            return Err(client.explain(broken));
        }
        screen.note("connection to the coordinator lost; trying again");
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Where events are shown.
enum Screen {
    Json,
    Lines,
    Live(Box<Live>),
}

struct Live {
    tasks: BTreeMap<String, v1::Task>,
    matrix: ProgressBar,
    bar: ProgressBar,
    screen: MultiProgress,
}

impl Screen {
    fn new(mode: Mode) -> Self {
        match mode {
            Mode::Json => Screen::Json,
            Mode::Table if std::io::stderr().is_terminal() => Screen::Live(Box::new(Live::new())),
            Mode::Table => Screen::Lines,
        }
    }

    fn show(&mut self, event: v1::Event) -> Result<(), Failed> {
        match self {
            Screen::Json => output::json_line(&view::Event::from(event)),
            Screen::Lines => {
                eprintln!("{}", event.message);
                Ok(())
            }
            Screen::Live(live) => {
                live.show(event);
                Ok(())
            }
        }
    }

    fn note(&mut self, text: &str) {
        match self {
            Screen::Live(live) => live.bar.set_message(text.to_owned()),
            Screen::Json | Screen::Lines => eprintln!("{text}"),
        }
    }

    fn clear(&mut self) {
        if let Screen::Live(live) = self {
            live.bar.finish_and_clear();
            live.matrix.finish_and_clear();
            // What could not be drawn could not be seen either.
            let _ = live.screen.clear();
        }
    }
}

impl Live {
    fn new() -> Self {
        let screen = MultiProgress::new();
        let matrix = screen.add(ProgressBar::new_spinner());
        let bar = screen.add(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            matrix.set_style(style);
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} tasks  {elapsed}  {wide_msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self {
            tasks: BTreeMap::new(),
            matrix,
            bar,
            screen,
        }
    }

    fn show(&mut self, event: v1::Event) {
        if let Some(task) = event.task {
            self.tasks.insert(task.id.clone(), task);
        }
        // Each platform will have a check and an extraction.
        let platforms = self.tasks.values().filter(|t| t.kind() == v1::TaskKind::Check).count();
        let done = self.tasks.values().filter(|t| t.ended_ms != 0).count();
        self.bar.set_length((2 * platforms).max(self.tasks.len()) as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(event.message);
        let colours = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        self.matrix
            .set_message(Matrix::new(self.tasks.values(), false).render(terminal_rows(), colours));
    }
}

/// How many rows of the matrix fit on the terminal, with room for the rest.
fn terminal_rows() -> usize {
    let (rows, _) = console::Term::stderr().size();
    usize::from(rows).saturating_sub(5).max(3)
}
