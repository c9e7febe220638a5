//! One target as dispatch knows it: its places, how fast and how well it answers, and what keeps requests away
//! from it.

use super::Time;
use super::estimate::{Peak, Speed};
use super::health::Health;
use super::limit::AutoLimit;

const ASIDE_FIRST: Time = Time::from_millis(100);
const ASIDE_MAX: Time = Time::from_secs(2);
const LAST_HOPE_FIRST: Time = Time::from_millis(10);
pub(super) const LAST_HOPE_MAX: Time = Time::from_millis(100);
/// How often a rising limit is looked at again while requests wait.
pub(super) const RISE_EACH: Time = Time::from_millis(100);
/// Successes after which a new target is as good as the others.
const WARM_AFTER: u64 = 20;

/// What is told of a target when it is added.
#[derive(Clone, Copy, Debug)]
pub struct TargetInfo {
    /// Made of its name by [`super::hash`]; the same in every gateway.
    pub name: u64,
    /// Its share where that counts, 100 as usual.
    pub weight: u32,
}

#[derive(Debug)]
pub(super) struct Target {
    pub serial: u64,
    pub in_flight: u32,
    /// False: gets no request any more, and is forgotten once nothing is in flight.
    pub serving: bool,
    /// Made of its name, for hashing.
    pub name: u64,
    /// Its share where that counts, 100 as usual.
    pub weight: u32,
    /// What it has gained by its weight and not been paid in requests.
    pub credit: i64,
    pub speed: Speed,
    pub peak: Peak,
    /// Its limit where that is learned.
    pub auto: AutoLimit,
    /// The requests that it last said it had, and ours of them.
    pub reported: Option<(u32, u32)>,
    pub health: Health,
    /// It asked to be left alone until then.
    pub paused_until: Time,
    /// Requests of which no answer has begun.
    pub unanswered: u32,
    /// When it last began an answer, or got a request while it had none.
    pub heard_at: Time,
    /// It has begun no answer for too long while others did.
    pub stalled: bool,
    /// A request was given up because no answer had begun, and none has begun since.
    is_silent: bool,
    /// It is taken to be silent until then.
    silent_until: Time,
    pub ok_count: u64,
    /// Since when its limit rises; `None`: it does not.
    warm_since: Option<Time>,
    strikes: u32,
    pub aside_until: Time,
    pub last_hope_at: Time,
}

impl Target {
    /// A target whose limit rises from `warm_since` on; `None`: it has all of it at once.
    pub fn new(serial: u64, info: TargetInfo, warm_since: Option<Time>, now: Time) -> Self {
        Self {
            serial,
            in_flight: 0,
            serving: true,
            name: info.name,
            weight: info.weight,
            credit: 0,
            speed: Speed::default(),
            peak: Peak::default(),
            auto: AutoLimit::default(),
            reported: None,
            health: Health::default(),
            paused_until: Time::ZERO,
            unanswered: 0,
            heard_at: now,
            stalled: false,
            is_silent: false,
            silent_until: Time::ZERO,
            ok_count: 0,
            warm_since,
            strikes: 0,
            aside_until: Time::ZERO,
            last_hope_at: Time::ZERO,
        }
    }

    /// Its requests in flight, others' included as far as it reports them.
    pub fn load(&self) -> u32 {
        let others = self.reported.map_or(0, |(all, ours)| all.saturating_sub(ours));
        self.in_flight + others
    }

    pub fn take(&mut self, now: Time) {
        self.in_flight += 1;
        if self.unanswered == 0 && !self.is_silent {
            self.heard_at = now;
        }
        self.unanswered += 1;
        self.health.taken(now);
    }

    /// It answers; true when it was thought to stall.
    pub fn heard(&mut self, now: Time) -> bool {
        self.heard_at = now;
        self.unanswered = self.unanswered.saturating_sub(1);
        (self.is_silent, self.silent_until) = (false, Time::ZERO);
        std::mem::replace(&mut self.stalled, false)
    }

    /// A request was answered to its end; true when that returns it from being put aside.
    pub fn answered(&mut self, took: Time, among: u32, now: Time) -> bool {
        self.speed.add(took);
        self.peak.add(took, now);
        self.auto.answered(took, among);
        self.ok_count += 1;
        let returns = self.health.ok(now);
        if returns {
            self.begin_anew(now);
        }
        returns
    }

    /// A request was given up because no answer had begun: it is likely to stay silent for as long again.
    pub fn silent(&mut self, now: Time) {
        self.is_silent = true;
        self.silent_until = now + now.saturating_sub(self.heard_at);
    }

    /// How long it has begun no answer, if it ought to have.
    pub fn silence(&self, now: Time) -> Option<Time> {
        (self.unanswered > 0 || now < self.silent_until).then(|| now.saturating_sub(self.heard_at))
    }

    /// No connection could be made; true when that is news.
    pub fn unreachable(&mut self, now: Time) -> bool {
        let news = self.strikes == 0;
        let doublings = self.strikes.min(8);
        self.strikes += 1;
        self.aside_until = now + (ASIDE_FIRST * 2u32.pow(doublings)).min(ASIDE_MAX);
        self.last_hope_at = now + (LAST_HOPE_FIRST * 2u32.pow(doublings)).min(LAST_HOPE_MAX);
        news
    }

    /// A connection was made; true when that is news.
    pub fn connected(&mut self) -> bool {
        self.aside_until = Time::ZERO;
        self.last_hope_at = Time::ZERO;
        std::mem::take(&mut self.strikes) > 0
    }

    /// Its limit rises from the beginning.
    fn begin_anew(&mut self, now: Time) {
        self.ok_count = 0;
        self.warm_since = Some(now);
    }

    /// Whether it gets no requests, or hardly any, for what it did or said.
    pub fn is_left_alone(&self, now: Time) -> bool {
        self.serving && (self.health.is_aside() || self.paused_until > now)
    }

    pub fn has_place(&self, limit: Option<u32>) -> bool {
        limit.is_none_or(|limit| self.in_flight < limit)
    }

    /// Whether it has answered enough for its limit not to rise any more.
    pub fn has_proved_itself(&self) -> bool {
        self.ok_count >= WARM_AFTER
    }

    /// How much of its limit it may use, 0 to 1: rises over `slow_start`, until enough was answered.
    pub fn warmth(&self, slow_start: Time, now: Time) -> f64 {
        let Some(since) = self.warm_since else { return 1.0 };
        let passed = now.saturating_sub(since);
        if passed >= slow_start || self.has_proved_itself() {
            return 1.0;
        }
        let by_time = passed.as_secs_f64() / slow_start.as_secs_f64();
        by_time.max(self.ok_count as f64 / WARM_AFTER as f64)
    }
}
