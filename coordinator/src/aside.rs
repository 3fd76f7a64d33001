//! Work that blocks: queries, files, fsync. It is done aside, on threads of its own, where it holds up nobody.

use tokio::task::JoinError;

/// Where work that blocks is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aside {
    #[default]
    Threads,
    /// By whoever asks. For a simulation, which has one thread so that the same seed gives the same run.
    InPlace,
}

impl Aside {
    /// Does `work`. On a thread it goes on to its end even if whoever waits goes away.
    ///
    /// # Errors
    /// It panicked, or the runtime is shutting down.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
        match self {
            Self::Threads => {
                // What is logged there is about the same.
                let span = tracing::Span::current();
                tokio::task::spawn_blocking(move || span.in_scope(work)).await
            }
            Self::InPlace => Ok(work()),
        }
    }
}
