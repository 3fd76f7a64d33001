//! Views that many poll: each is made once, and answered from memory until something that it shows has changed.
//!
//! A view is a text with an entity tag (RFC 9110, 8.8.3). As long as nothing it is about has changed, a poll costs a look into
//! two maps. What is not in the database (what an attempt is doing, why a task waits) changes without a count, so a view of
//! something that runs is made anew after a second if anybody asks.
//!
//! On a busy farm all views change all the time. Making them for those that poll is then kept to a share of one core, so that a
//! wall full of displays slows the farm down less: they see what is up to five seconds old, and beyond that it is made whatever
//! it takes. People's pages don't wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use klp_livepatch::task::LivepatchId;
use tokio::time::Instant;

use super::answer::Refused;
use crate::clock::Clock;
use crate::lifecycle::Millis;
use crate::versions::{Cursor, Versions};

/// The most that all views may take, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// However fast things change, a view is made anew no more often than this, in milliseconds.
const CALM: Millis = 300;
/// How old a view of something that runs may be, in milliseconds.
const LIVE: Millis = 1_000;
/// How old any other view may be, in milliseconds: what is cleared away is not counted.
const STILL: Millis = 30_000;
/// How old a view may be that has changed, in milliseconds, however much there is to make.
const LATEST: Millis = 5_000;
/// Making views for those that poll takes one part in so many of one core.
const SHARE: u32 = 50;
/// What was not made before counts for so long: after a pause some views are made at once.
const SAVED: Duration = Duration::from_secs(1);

/// Who waits for a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// A person, whose browser was told that something changed.
    Person,
    /// A program that asks again and again.
    Poller,
}

/// What a view is about: it stays as it is while that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Livepatch(LivepatchId),
    /// All livepatches.
    All,
    /// What is only in the farm's memory.
    Farm,
}

/// A view as its maker gives it.
pub struct Made {
    pub about: About,
    /// It shows something that runs.
    pub live: bool,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

#[derive(Clone)]
struct Kept {
    about: About,
    stamp: Cursor,
    at: Millis,
    live: bool,
    content_type: &'static str,
    etag: HeaderValue,
    body: axum::body::Bytes,
}

type Slot = Arc<tokio::sync::Mutex<Option<Kept>>>;

pub struct Views {
    slots: Mutex<HashMap<String, Slot>>,
    allowance: Mutex<Allowance>,
    versions: Versions,
    clock: Clock,
}

impl Views {
    pub fn new(versions: Versions, clock: Clock) -> Self {
        Self {
            slots: Mutex::default(),
            allowance: Mutex::new(Allowance { next: Instant::now() }),
            versions,
            clock,
        }
    }

    fn stamp(&self, about: About) -> Cursor {
        match about {
            About::Livepatch(id) => self.versions.of(id),
            About::All | About::Farm => self.versions.now(),
        }
    }

    fn is_fresh(&self, kept: &Kept) -> bool {
        let age = self.clock.now() - kept.at;
        let limit = match (kept.live, kept.about) {
            (true, _) | (_, About::Farm) => LIVE,
            _ => STILL,
        };
        age < CALM || (age < limit && self.stamp(kept.about) == kept.stamp)
    }

    fn will_do(&self, kept: &Kept, who: For) -> bool {
        let may_wait = || who == For::Poller && self.clock.now() - kept.at < LATEST;
        self.is_fresh(kept) || (may_wait() && !self.allowance().has_left())
    }

    fn allowance(&self) -> MutexGuard<'_, Allowance> {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers the view of that key, made by `make` if what is kept will not do. Of those that ask at once one makes it. A poller
    /// that sends `Cache-Control: no-cache` (RFC 9111, 5.2.1.4) is served as a person is.
    ///
    /// # Errors
    /// Its maker's.
    pub async fn answer<F>(&self, who: For, key: String, asked: &HeaderMap, make: F) -> Result<Response, Refused>
    where
        F: AsyncFnOnce() -> Result<Made, Refused>,
    {
        let who = if wants_now(asked) { For::Person } else { who };
        let slot = self.slot(key);
        let mut kept = slot.lock().await;
        let fresh = match kept.take().filter(|kept| self.will_do(kept, who)) {
            Some(fresh) => fresh,
            None => self.make(make).await?,
        };
        *kept = Some(fresh.clone());
        drop(kept);
        Ok(fresh.answer(asked))
    }

    async fn make<F>(&self, make: F) -> Result<Kept, Refused>
    where
        F: AsyncFnOnce() -> Result<Made, Refused>,
    {
        // Before it is made: what changes meanwhile makes it stale.
        let (before, at) = (self.versions.now(), self.clock.now());
        let start = Instant::now();
        let made = make().await?;
        self.allowance().spend(start.elapsed());
        let stamp = match made.about {
            About::Livepatch(id) if self.versions.of(id).is_after(before) => before,
            About::Livepatch(id) => self.versions.of(id),
            About::All | About::Farm => before,
        };
        let digest = blake3::hash(&made.body).to_hex();
        let etag = HeaderValue::from_str(&format!("W/\"{}\"", &digest[..20]));
        Ok(Kept {
            about: made.about,
            stamp,
            at,
            live: made.live,
            content_type: made.content_type,
            // Hexadecimal digits are fit for a header.
            etag: etag.unwrap_or(HeaderValue::from_static("W/\"0\"")),
            body: made.body.into(),
        })
    }

    fn slot(&self, key: String) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        self.make_room(&mut slots);
        Arc::clone(slots.entry(key).or_default())
    }

    /// Drops what is stale, or everything, if there is too much. What somebody is making stays.
    fn make_room(&self, slots: &mut HashMap<String, Slot>) {
        let size = |slot: &Slot| match slot.try_lock() {
            Ok(kept) => kept.as_ref().map_or(0, |kept| kept.body.len()),
            Err(_) => 0,
        };
        // Each takes some room beside its key and its text.
        let total = |slots: &HashMap<String, Slot>| {
            slots
                .iter()
                .map(|(key, slot)| key.len() + size(slot) + 512)
                .sum::<usize>()
        };
        if total(slots) <= MAX_BYTES {
            return;
        }
        slots.retain(|_, slot| {
            slot.try_lock()
                .map_or(true, |kept| kept.as_ref().is_some_and(|k| self.is_fresh(k)))
        });
        if total(slots) > MAX_BYTES {
            slots.retain(|_, slot| slot.try_lock().is_err());
        }
    }
}

/// Keeps making views to its share: after each, so much time must pass that its making was no more than that.
struct Allowance {
    /// When the next may be made.
    next: Instant,
}

impl Allowance {
    fn has_left(&self) -> bool {
        self.next <= Instant::now()
    }

    fn spend(&mut self, took: Duration) {
        let now = Instant::now();
        let saved = now.checked_sub(SAVED).unwrap_or(now);
        self.next = self.next.max(saved) + took * SHARE;
    }
}

impl Kept {
    fn answer(self, asked: &HeaderMap) -> Response {
        let unchanged = known(asked, &self.etag);
        let mut response = match unchanged {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => Body::from(self.body).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if !unchanged {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        response
    }
}

fn wants_now(asked: &HeaderMap) -> bool {
    let mut said = asked.get_all(header::CACHE_CONTROL).iter();
    said.any(|value| value.to_str().is_ok_and(|value| value.contains("no-cache")))
}

/// Whether `If-None-Match` names the tag, by weak comparison.
fn known(asked: &HeaderMap, etag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(etag) = etag.to_str().map(opaque) else {
        return false;
    };
    let named = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok());
    named
        .flat_map(|list| list.split(','))
        .any(|tag| tag.trim() == "*" || opaque(tag) == etag)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use uuid::Uuid;

    use super::*;
    use crate::store::Change;

    async fn ask(views: &Views, made: &AtomicUsize, about: About, live: bool, tag: Option<&HeaderValue>) -> Response {
        let mut asked = HeaderMap::new();
        if let Some(tag) = tag {
            asked.insert(header::IF_NONE_MATCH, tag.clone());
        }
        let make = async || {
            let n = made.fetch_add(1, Ordering::Relaxed);
            Ok(Made {
                about,
                live,
                content_type: "text/plain",
                body: format!("{}", n / 2).into_bytes(),
            })
        };
        views.answer(For::Poller, "k".to_owned(), &asked, make).await.unwrap()
    }

    fn setup() -> (Views, Versions, AtomicUsize) {
        let versions = Versions::new(1);
        let clock = Clock::new(std::time::Duration::ZERO, || 0);
        (Views::new(versions.clone(), clock), versions, AtomicUsize::new(0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_is_made_anew_only_when_what_it_shows_has_changed() {
        let (views, versions, made) = setup();
        let (id, other) = (LivepatchId(Uuid::from_u128(1)), LivepatchId(Uuid::from_u128(2)));
        let about = About::Livepatch(id);
        let change = |livepatch| Change::Event { livepatch, number: 1 };
        let first = ask(&views, &made, about, false, None).await;
        let tag = first.headers()[header::ETAG].clone();
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
        versions.count(&[change(other)]);
        let same = ask(&views, &made, about, false, Some(&tag)).await;
        assert_eq!(
            (same.status(), made.load(Ordering::Relaxed)),
            (StatusCode::NOT_MODIFIED, 1)
        );
        versions.count(&[change(id)]);
        let again = ask(&views, &made, about, false, Some(&tag)).await;
        // It was made again, and came out the same.
        assert_eq!(
            (again.status(), made.load(Ordering::Relaxed)),
            (StatusCode::NOT_MODIFIED, 2)
        );
        versions.count(&[change(id)]);
        let calm = ask(&views, &made, about, false, Some(&tag)).await;
        assert_eq!(
            (calm.status(), made.load(Ordering::Relaxed)),
            (StatusCode::NOT_MODIFIED, 2)
        );
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let new = ask(&views, &made, about, false, Some(&tag)).await;
        assert_eq!((new.status(), made.load(Ordering::Relaxed)), (StatusCode::OK, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_is_looked_at_each_second() {
        let (views, _, made) = setup();
        ask(&views, &made, About::All, true, None).await;
        tokio::time::advance(std::time::Duration::from_millis(900)).await;
        ask(&views, &made, About::All, true, None).await;
        assert_eq!(made.load(Ordering::Relaxed), 1);
        tokio::time::advance(std::time::Duration::from_millis(200)).await;
        ask(&views, &made, About::All, true, None).await;
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn pollers_of_a_busy_farm_get_what_its_share_can_make_and_nothing_too_old() {
        let (views, versions, _) = setup();
        let (id, asked) = (LivepatchId(Uuid::from_u128(1)), HeaderMap::new());
        let (mut polls, mut oldest, mut busy) = (0_u32, Duration::ZERO, Duration::ZERO);
        // Twenty views, each of which takes 10 ms to make, and something always happens.
        let mut made_at = [Instant::now(); 20];
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            versions.count(&[Change::Event {
                livepatch: id,
                number: 1,
            }]);
            for (view, made_at) in made_at.iter_mut().enumerate() {
                let make = async || {
                    tokio::time::advance(Duration::from_millis(10)).await;
                    (*made_at, busy) = (Instant::now(), busy + Duration::from_millis(10));
                    Ok(text(About::All, true))
                };
                let answer = views.answer(For::Poller, view.to_string(), &asked, make).await;
                assert_eq!(answer.unwrap().status(), StatusCode::OK);
                (polls, oldest) = (polls + 1, oldest.max(made_at.elapsed()));
            }
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        assert!(polls > 20_000, "{polls}");
        // Twenty views in five seconds are more than the share: then none gets older.
        assert!(oldest <= Duration::from_millis(5_400), "{oldest:?}");
        let most = start.elapsed() / 20;
        assert!(busy < most, "{busy:?} of {:?}", start.elapsed());
        // Who looks at a page does not wait.
        versions.count(&[Change::Event {
            livepatch: id,
            number: 1,
        }]);
        tokio::time::advance(Duration::from_millis(300)).await;
        let mut made = false;
        let make = async || {
            made = true;
            Ok(text(About::All, true))
        };
        views.answer(For::Person, "0".to_owned(), &asked, make).await.unwrap();
        assert!(made);
    }

    fn text(about: About, live: bool) -> Made {
        Made {
            about,
            live,
            content_type: "text/plain",
            body: Vec::new(),
        }
    }
}
