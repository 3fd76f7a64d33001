//! Answers scrapes. What is counted is read as it is. The farm's loop is asked at most once a second, however many ask, and
//! never waited for long: while it waits for its disk, which is when somebody needs to see it, the last view is told again,
//! with its age.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{prometheus_text, text};
use tokio::sync::watch;

use super::Metrics;
use super::view::View;
use crate::aside::Aside;
use crate::clock::Clock;
use crate::farm::Farm;
use crate::lifecycle::Millis;
use crate::space::Space;

/// How old a view may be before another is asked for, in milliseconds.
const FRESH: Millis = 1_000;
/// How long a scrape waits for the farm's loop.
const PATIENCE: Duration = Duration::from_millis(250);

/// What a scraper can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, 0.0.4: for everybody.
    Plain,
    OpenMetrics,
}

impl Format {
    /// What to answer to an `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        let wanted = |kind: &str| {
            let mut parts = kind.split(';').map(str::trim);
            let named = parts.next() == Some("application/openmetrics-text");
            // What has no weight at all is not wanted.
            named && !parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        match accept.split(',').any(wanted) {
            true => Format::OpenMetrics,
            false => Format::Plain,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::Plain => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whom a scrape asks; cheap to clone.
#[derive(Clone)]
pub struct Scrape {
    metrics: Metrics,
    sources: Arc<Sources>,
    last: watch::Sender<Option<Arc<View>>>,
    asking: Arc<AtomicBool>,
}

struct Sources {
    farm: Farm,
    space: Space,
    clock: Clock,
    aside: Aside,
}

impl Scrape {
    pub fn new(metrics: Metrics, farm: Farm, space: Space, clock: Clock, aside: Aside) -> Self {
        Self {
            metrics,
            sources: Arc::new(Sources {
                farm,
                space,
                clock,
                aside,
            }),
            last: watch::Sender::new(None),
            asking: Arc::default(),
        }
    }

    /// All metrics, as text.
    ///
    /// # Errors
    /// None that is known: a text takes whatever is written.
    pub async fn text(&self, format: Format) -> Result<String, std::fmt::Error> {
        let view = self.view().await;
        let now = self.sources.clock.now();
        let counted = self.metrics.registry();
        let seen = view.map(|view| view.registry(now));
        let mut out = String::with_capacity(64 << 10);
        for registry in std::iter::once(counted).chain(&seen) {
            match format {
                Format::Plain => prometheus_text::encode(&mut out, registry)?,
                Format::OpenMetrics => text::encode_registry(&mut out, registry)?,
            }
        }
        if format == Format::OpenMetrics {
            text::encode_eof(&mut out)?;
        }
        Ok(out)
    }

    /// A fresh view, or the last one if the farm takes too long; `None` if there never was one.
    async fn view(&self) -> Option<Arc<View>> {
        let mut views = self.last.subscribe();
        let last = views.borrow_and_update().clone();
        let now = self.sources.clock.now();
        if last.as_ref().is_some_and(|view| now - view.at < FRESH) {
            return last;
        }
        if !self.asking.swap(true, Ordering::AcqRel) {
            let (sources, last) = (Arc::clone(&self.sources), self.last.clone());
            let asking = Asking(Arc::clone(&self.asking));
            // It goes on when this scrape is given up, for the next one.
            tokio::spawn(async move {
                last.send_replace(Some(Arc::new(sources.look().await)));
                drop(asking);
            });
        }
        let _ = tokio::time::timeout(PATIENCE, views.changed()).await;
        self.last.borrow().clone()
    }
}

/// Somebody asks the farm.
struct Asking(Arc<AtomicBool>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Sources {
    async fn look(&self) -> View {
        let space = self.space.clone();
        let room = self.aside.run(move || space.room()).await;
        let (workers, waiting) = tokio::join!(self.farm.workers(), self.farm.waiting());
        View {
            at: self.clock.now(),
            workers,
            waiting,
            room: room.ok().flatten(),
            min_free: self.space.min_free(),
        }
    }
}
