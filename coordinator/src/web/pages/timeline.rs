//! Where a livepatch's time went: its attempts by worker on one axis, drawn as SVG without a script, and sums by kind.

use std::collections::{BTreeMap, HashMap};

use klp_proto::v1;
use klp_proto::view;
use klp_proto::view::words::duration;

/// Width of the axis, in units of the drawing.
const WIDTH: i64 = 1000;
/// Height of a lane.
const LANE: usize = 14;
/// The most bars that are drawn: the longest ones.
const BARS: usize = 2000;
/// Marks on the axis.
const TICKS: i64 = 5;

#[derive(Default)]
pub struct Timeline {
    pub workers: Vec<Lanes>,
    pub ticks: Vec<Tick>,
    pub height: usize,
    pub kinds: Vec<Kind>,
    /// Attempts that are not drawn.
    pub hidden: usize,
}

/// One worker's attempts.
pub struct Lanes {
    pub worker: String,
    /// Where its first lane is.
    pub y: usize,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub x: i64,
    pub y: usize,
    pub width: i64,
    pub class: String,
    pub title: String,
}

pub struct Tick {
    pub x: i64,
    pub text: String,
}

/// What tasks of one kind took.
pub struct Kind {
    pub kind: &'static str,
    pub attempts: usize,
    pub waited: String,
    pub took: String,
    pub longest: String,
    pub longest_of: String,
}

impl Timeline {
    pub fn new(livepatch: &v1::Livepatch, tasks: &[v1::Task], attempts: &[view::Attempt], now: i64) -> Self {
        let tasks: HashMap<&str, &v1::Task> = tasks.iter().map(|task| (task.id.as_str(), task)).collect();
        let begin = livepatch.created_ms;
        let end = |attempt: &view::Attempt| attempt.ended_ms.unwrap_or(now).max(attempt.started_ms);
        let last = attempts.iter().map(end).max().unwrap_or(begin);
        let whole = (last - begin).max(1);
        let mut longest: Vec<&view::Attempt> = attempts.iter().collect();
        longest.sort_by_key(|attempt| attempt.started_ms - end(attempt));
        let hidden = longest.len().saturating_sub(BARS);
        longest.truncate(BARS);
        longest.sort_by_key(|attempt| attempt.started_ms);
        let mut by_worker: BTreeMap<&str, Vec<&view::Attempt>> = BTreeMap::new();
        for attempt in longest {
            by_worker.entry(&attempt.worker).or_default().push(attempt);
        }
        let mut top = 0;
        let mut workers = Vec::new();
        for (worker, attempts) in by_worker {
            // Until when each lane is taken.
            let mut lanes: Vec<i64> = Vec::new();
            let mut bars = Vec::new();
            let y = top + LANE;
            for attempt in attempts {
                let free = lanes.iter().position(|until| *until <= attempt.started_ms);
                let lane = free.unwrap_or(lanes.len());
                if lane == lanes.len() {
                    lanes.push(0);
                }
                lanes[lane] = end(attempt);
                let x = WIDTH * (attempt.started_ms - begin).max(0) / whole;
                let kind = tasks
                    .get(attempt.task_id.as_str())
                    .map_or("unknown", |task| view::task_kind(task));
                bars.push(Bar {
                    x,
                    y: y + lane * LANE,
                    width: (WIDTH * (end(attempt) - attempt.started_ms) / whole).max(1),
                    class: format!("k-{kind} a-{}", attempt.state.replace(' ', "-")),
                    title: title(attempt, tasks.get(attempt.task_id.as_str()).copied(), end(attempt)),
                });
            }
            top = y + lanes.len() * LANE + LANE / 2;
            workers.push(Lanes {
                worker: worker.to_owned(),
                y: y - 3,
                bars,
            });
        }
        let ticks = (0..=TICKS).map(|n| Tick {
            x: WIDTH * n / TICKS,
            text: duration(whole * n / TICKS),
        });
        Self {
            workers,
            ticks: ticks.collect(),
            height: top + LANE,
            kinds: kinds(&tasks, attempts, now),
            hidden,
        }
    }
}

fn title(attempt: &view::Attempt, task: Option<&v1::Task>, end: i64) -> String {
    let what = task.map_or(String::new(), |task| {
        let platform = task.platform.clone().unwrap_or_default();
        format!("{} {}/{}, ", view::task_kind(task), platform.codestream, platform.arch)
    });
    let took = duration(end - attempt.started_ms);
    format!("{what}attempt {} {} in {took}", attempt.number, attempt.state)
}

fn kinds(tasks: &HashMap<&str, &v1::Task>, attempts: &[view::Attempt], now: i64) -> Vec<Kind> {
    #[derive(Default)]
    struct Sum<'a> {
        attempts: usize,
        waited: i64,
        took: i64,
        longest: (i64, Option<&'a v1::Task>),
    }
    let mut sums: BTreeMap<&'static str, Sum<'_>> = BTreeMap::new();
    for attempt in attempts {
        let Some(task) = tasks.get(attempt.task_id.as_str()) else {
            continue;
        };
        let sum = sums.entry(view::task_kind(task)).or_default();
        let took = attempt.ended_ms.unwrap_or(now) - attempt.started_ms;
        sum.attempts += 1;
        sum.took += took;
        if attempt.number == 1 {
            sum.waited += attempt.started_ms - task.created_ms;
        }
        if took >= sum.longest.0 {
            sum.longest = (took, Some(task));
        }
    }
    let kind = |(kind, sum): (&'static str, Sum<'_>)| {
        let of = sum.longest.1.and_then(|task| task.platform.clone()).unwrap_or_default();
        Kind {
            kind,
            attempts: sum.attempts,
            waited: duration(sum.waited),
            took: duration(sum.took),
            longest: duration(sum.longest.0),
            longest_of: format!("{}/{}", of.codestream, of.arch),
        }
    };
    sums.into_iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_at_the_same_time_get_lanes_of_their_own() {
        let attempt = |number, worker: &str, started_ms, ended_ms| view::Attempt {
            task_id: "t".to_owned(),
            number,
            worker: worker.to_owned(),
            state: "succeeded",
            started_ms,
            ended_ms,
            failure: None,
        };
        let task = v1::Task {
            id: "t".to_owned(),
            kind: v1::TaskKind::Check.into(),
            created_ms: 100,
            ..Default::default()
        };
        let livepatch = v1::Livepatch {
            created_ms: 100,
            ..Default::default()
        };
        let attempts = [
            attempt(1, "a", 100, Some(200)),
            attempt(2, "a", 150, Some(300)),
            attempt(3, "a", 200, None),
            attempt(4, "b", 1100, None),
        ];
        let timeline = Timeline::new(&livepatch, &[task], &attempts, 1100);
        let places: Vec<(i64, usize, i64)> = timeline.workers[0].bars.iter().map(|b| (b.x, b.y, b.width)).collect();
        assert_eq!(places, [(0, 14, 100), (50, 28, 150), (100, 14, 900)]);
        assert_eq!(timeline.workers.len(), 2);
        assert_eq!(timeline.workers[1].bars[0].width, 1, "what has just begun can be seen");
        assert_eq!(
            (timeline.kinds[0].attempts, timeline.kinds[0].waited.as_str()),
            (4, "0 ms")
        );
    }
}
