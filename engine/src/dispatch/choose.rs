//! Which of the targets with a free place gets a request.
//!
//! The one where the answer is expected first: its geometric mean time, multiplied by the requests that share it
//! where their number is not limited. Targets within a quarter of the best are as good as the best; of those
//! the one with the fewest requests is taken, ties in turn. What is known of a slow target would never change
//! if it got nothing, so one request in a hundred goes to any.

use super::Time;
use super::service::{Notice, Service, TargetKey};
use super::target::Target;

/// Expected times within this factor of the best are not told apart.
const AS_GOOD: f64 = 1.25;
/// Share of requests by which slow targets stay known.
const EXPLORE: f64 = 0.01;
/// A target stalls when it has begun no answer for this multiple of the service's 99th percentile, and for this
/// long.
const STALL_P99: u32 = 3;
const STALL_MIN: Time = Time::from_secs(1);

struct Candidate {
    index: usize,
    avoided: bool,
    is_probe: bool,
    expected: Option<f64>,
    in_flight: u32,
}

impl Service {
    /// The target for a request that has failed on `avoid`; `None`: none has a free place.
    pub(super) fn choose(&mut self, avoid: &[TargetKey], now: Time) -> Option<TargetKey> {
        self.look_for_stalls(now);
        let fresh = self.has_fresh(now);
        let mut candidates: Vec<Candidate> = Vec::with_capacity(self.targets.len());
        for (index, target) in &self.targets {
            if target.serving && target.has_place(self.limit(target, now)) && self.opens_at(target, fresh) <= now {
                candidates.push(Candidate {
                    index,
                    avoided: avoid.contains(&self.key_of(index)),
                    is_probe: target.health.is_aside(),
                    expected: self.expected(target, now),
                    in_flight: target.in_flight,
                });
            }
        }
        if candidates.iter().any(|candidate| !candidate.avoided) {
            candidates.retain(|candidate| !candidate.avoided);
        }
        // One that may show that it is well again has to get the chance, however slow it is thought to be.
        if let Some(probed) = candidates.iter().find(|candidate| candidate.is_probe && !candidate.avoided) {
            return Some(self.key_of(probed.index));
        }
        let explores = candidates.len() > 1 && self.unit() < EXPLORE;
        if !explores {
            keep_as_good(&mut candidates);
        }
        let turn = self.turn;
        let chosen = candidates.iter().min_by_key(|candidate| {
            (if explores { 0 } else { candidate.in_flight }, candidate.index < turn, candidate.index)
        });
        chosen.map(|candidate| self.key_of(candidate.index))
    }

    /// The limit of a target at a moment; `None`: not limited.
    pub(super) fn limit(&self, target: &Target, now: Time) -> Option<u32> {
        self.policy.concurrency.map(|limit| {
            let warmth = target.warmth(self.policy.slow_start, now);
            (f64::from(limit) * warmth).ceil().clamp(1.0, f64::from(limit)) as u32
        })
    }

    /// When a target may get requests; in the past: now. `fresh`: whether there is one that is not set aside.
    pub(super) fn opens_at(&self, target: &Target, fresh: bool) -> Time {
        let reachable_at = if fresh { target.aside_until } else { target.aside_until.min(target.last_hope_at) };
        if target.stalled {
            return Time::MAX;
        }
        reachable_at.max(target.paused_until).max(target.health.admits_at())
    }

    /// Whether any target is not set aside: then those that are get nothing.
    pub(super) fn has_fresh(&self, now: Time) -> bool {
        self.targets.iter().any(|(_, target)| target.serving && !target.stalled && target.aside_until <= now)
    }

    fn expected(&self, target: &Target, now: Time) -> Option<f64> {
        let seconds = target.speed.seconds()?;
        Some(match self.policy.concurrency {
            Some(_) => seconds,
            None => seconds * f64::from(target.in_flight + 1) / target.warmth(self.policy.slow_start, now).max(0.1),
        })
    }

    /// Notes the targets that have begun no answer for long though others have. Never more than half, so that a
    /// service all of which is slow goes on.
    fn look_for_stalls(&mut self, now: Time) {
        let Some(p99) = self.known.p99 else { return };
        let threshold = (p99 * STALL_P99).max(STALL_MIN);
        let silent = |target: &Target| {
            target.serving && target.unanswered > 0 && now.saturating_sub(target.heard_at) > threshold
        };
        if now.saturating_sub(self.heard_at) > threshold || !self.targets.iter().any(|(_, target)| silent(target)) {
            return;
        }
        let mut room = (self.serving() / 2)
            .saturating_sub(self.targets.iter().filter(|(_, target)| target.serving && target.stalled).count());
        for index in 0..self.targets.capacity() {
            let Some(target) = self.targets.get_mut(index) else { continue };
            if room > 0 && !target.stalled && silent(target) {
                target.stalled = true;
                room -= 1;
                self.note(Notice::Stalled(self.key_of(index)));
            }
        }
    }
}

/// Leaves those that are not expected to take longer than the best. One of which nothing is known is taken to be
/// like the median.
fn keep_as_good(candidates: &mut Vec<Candidate>) {
    let mut known: Vec<f64> = candidates.iter().filter_map(|candidate| candidate.expected).collect();
    if known.len() < 2 && known.len() == candidates.len() {
        return;
    }
    known.sort_by(f64::total_cmp);
    let Some(median) = known.get(known.len() / 2).copied() else { return };
    let best = known[0].min(median);
    candidates.retain(|candidate| candidate.expected.unwrap_or(median) <= best * AS_GOOD);
}
