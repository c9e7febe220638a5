//! Which of the targets with a free place gets a request.
//!
//! * `fastest`: the one where the answer is expected first: its geometric mean time, multiplied by the requests
//!   that share it where their number is not limited. Targets within a quarter of the best are as good as the
//!   best; of those the one with the fewest requests is taken, ties in turn. One of which nothing is known is
//!   taken to be like the median, and one of which nothing has been heard for ten seconds gets the next request,
//!   since what is known of a slow target would else never change. One that has begun no answer for as long as
//!   hedging waits is expected to take as long again: it may have stopped.
//! * `least_requests`: fewest in flight, of all of them, ties in turn.
//! * `round_robin`: each in turn. `weighted`: in turn as often as its weight says, evenly spread (nginx's smooth
//!   weighted round robin). `random`: any.
//! * `p2c_ewma`: two at random, of which the one with the smaller product of peak latency and requests in flight
//!   (Mitzenmacher 2001 for the two, Finagle for the latency, which jumps up at once and decays slowly).
//! * `ring_hash`, `maglev`: see [`super::hashing`].
//! * `prequal`: of those that report fewer requests in flight than most, the fastest; if there is none, the one
//!   with the fewest (Wydrowski et al., "Load is not what you should balance", NSDI 2024). For targets that
//!   several gateways share: what they report counts everybody's requests.
//!
//! None of them gives a target more than its limit, or a request to one that is left alone.

use super::Time;
use super::ask::{Notice, TargetKey};
use super::choosing::{Candidate, Wish};
use super::hashing::{Member, Ring, Table};
use super::policy::{Balance, Concurrency};
use super::service::Service;
use super::target::Target;

/// Expected times within this factor of the best are not told apart.
const AS_GOOD: f64 = 1.25;
/// A target of which nothing was heard for so long gets a request, however slow it is thought to be.
const UNHEARD: Time = Time::from_secs(10);
/// A target stalls when it has begun no answer for this multiple of the service's 99th percentile, and for this
/// long.
const STALL_P99: u32 = 3;
const STALL_MIN: Time = Time::from_secs(1);
/// A request is held for a faster target if it is expected to end within this share of what a free one takes ...
const HOLD_TOTAL: f64 = 0.6;
/// ... and to wait for this share of it at most.
const HOLD_WAIT: f64 = 0.5;
/// Samples of a target from which on it is compared so.
const HOLD_SAMPLES: u64 = 50;
/// Share of targets that count as hot where they report their load (Prequal's 2^-0.25).
const HOT_QUANTILE: f64 = 0.84;

impl Service {
    /// The target for a request; `None`: none has a free place, or the request had better wait.
    pub(super) fn choose(&mut self, wish: &Wish<'_>, now: Time) -> Option<TargetKey> {
        self.look_for_stalls(now);
        let mut candidates = std::mem::take(&mut self.choosing.candidates);
        candidates.clear();
        let probed = self.gather(wish.avoid, &mut candidates, now);
        // One that may show that it is well again has to get the chance, however slow it is thought to be.
        let chosen = probed.or_else(|| self.pick(wish, &mut candidates, now));
        self.choosing.candidates = candidates;
        chosen.map(|index| self.key_of(index))
    }

    /// Finds the targets with a free place, those to be avoided only where there is no other; gives one that was
    /// put aside and may be tried.
    fn gather(&self, avoid: &[TargetKey], candidates: &mut Vec<Candidate>, now: Time) -> Option<usize> {
        let fresh = self.has_fresh(now);
        let mut avoided = true;
        for (index, target) in &self.targets {
            let is_open = target.serving && self.opens_at(target, fresh) <= now;
            if !is_open || !target.has_place(self.limit(target, now)) {
                continue;
            }
            let is_avoided = avoid.contains(&self.key_of(index));
            if !is_avoided && target.health.is_aside() {
                return Some(index);
            }
            if is_avoided && !avoided {
                continue;
            }
            if !is_avoided && avoided {
                candidates.clear();
                avoided = false;
            }
            candidates.push(Candidate {
                index,
                expected: self.expected(target, now),
                in_flight: target.in_flight,
                is_unheard: target.in_flight == 0 && now.saturating_sub(target.heard_at) > UNHEARD,
            });
        }
        None
    }

    fn pick(&mut self, wish: &Wish<'_>, candidates: &mut Vec<Candidate>, now: Time) -> Option<usize> {
        if candidates.is_empty() {
            return None;
        }
        match self.policy.balance {
            Balance::Fastest => self.fastest(wish, candidates, now),
            Balance::LeastRequests => self.fewest(candidates),
            Balance::RoundRobin => candidates.iter().map(|one| one.index).min_by_key(|index| self.turn_order(*index)),
            Balance::Weighted => self.weighted(candidates),
            Balance::Random => {
                let drawn = self.below(candidates.len());
                Some(candidates[drawn].index)
            }
            Balance::P2cEwma => self.better_of_two(candidates, now),
            Balance::RingHash | Balance::Maglev => self.hashed(wish.hash, candidates),
            Balance::Prequal => self.cold(candidates),
        }
    }

    fn fastest(&mut self, wish: &Wish<'_>, candidates: &mut Vec<Candidate>, now: Time) -> Option<usize> {
        if let Some(unheard) = candidates.iter().find(|one| one.is_unheard) {
            return Some(unheard.index);
        }
        let best = keep_as_good(candidates);
        if self.policy.hold
            && let Some(best) = best
            && self.is_worth_waiting(best, wish.waited, now)
        {
            return None;
        }
        self.fewest(candidates)
    }

    /// Whether a busy target that is much faster is expected to answer before one that takes `slow` seconds.
    fn is_worth_waiting(&self, slow: f64, waited: Time, now: Time) -> bool {
        let (mut fast, mut busy) = (f64::INFINITY, 0.0);
        for (_, target) in &self.targets {
            let is_well = target.serving && !target.stalled && target.ok_count >= HOLD_SAMPLES;
            let Some(seconds) = target.speed.seconds().filter(|seconds| is_well && 2.0 * seconds <= slow) else {
                continue;
            };
            if self.limit(target, now).is_some_and(|limit| target.in_flight >= limit) {
                fast = fast.min(seconds);
                busy += f64::from(target.in_flight);
            }
        }
        // The next of so many places is free after their share of the mean.
        let wait = fast * (self.waiting() as f64 + 1.0) / busy;
        busy > 0.0
            && wait + fast < HOLD_TOTAL * slow
            && wait < HOLD_WAIT * slow
            && waited.as_secs_f64() < HOLD_WAIT * slow
    }

    fn fewest(&self, candidates: &[Candidate]) -> Option<usize> {
        let order = |one: &Candidate| (one.in_flight, self.turn_order(one.index));
        candidates.iter().min_by_key(|one| order(one)).map(|one| one.index)
    }

    /// Each gains its weight, the one with the most is taken and pays for all.
    fn weighted(&mut self, candidates: &[Candidate]) -> Option<usize> {
        let mut total = 0;
        for one in candidates {
            let target = &mut self.targets[one.index];
            target.credit += i64::from(target.weight);
            total += i64::from(target.weight);
        }
        let chosen = candidates.iter().map(|one| one.index).max_by_key(|index| self.targets[*index].credit)?;
        self.targets[chosen].credit -= total;
        Some(chosen)
    }

    fn better_of_two(&mut self, candidates: &[Candidate], now: Time) -> Option<usize> {
        let first = self.below(candidates.len());
        if candidates.len() == 1 {
            return Some(candidates[first].index);
        }
        let second = (first + 1 + self.below(candidates.len() - 1)) % candidates.len();
        let cost = |one: &Candidate| self.targets[one.index].peak.seconds(now) * f64::from(one.in_flight + 1);
        let (first, second) = (&candidates[first], &candidates[second]);
        Some(if cost(second) < cost(first) { second.index } else { first.index })
    }

    fn hashed(&mut self, hash: Option<u64>, candidates: &[Candidate]) -> Option<usize> {
        // A request that has nothing of the kind belongs nowhere in particular.
        let Some(hash) = hash else { return self.fewest(candidates) };
        let (count, taken) = self
            .targets
            .iter()
            .filter(|(_, target)| target.serving)
            .fold((0.0, 1.0), |(count, taken), (_, target)| (count + 1.0, taken + f64::from(target.in_flight)));
        let bound = self.policy.hash_load.map(|load| (load * taken / count).ceil());
        let suits = |index: &usize| {
            candidates
                .iter()
                .any(|one| one.index == *index && bound.is_none_or(|bound| f64::from(one.in_flight) < bound))
        };
        if self.policy.balance == Balance::Maglev {
            let members = || members(&self.targets);
            self.choosing.table.get_or_insert_with(|| Table::new(&members())).order(hash).find(suits)
        } else {
            let members = || members(&self.targets);
            self.choosing.ring.get_or_insert_with(|| Ring::new(&members())).order(hash).find(suits)
        }
        .or_else(|| self.fewest(candidates))
    }

    fn cold(&self, candidates: &[Candidate]) -> Option<usize> {
        let load = |one: &Candidate| self.targets[one.index].load();
        let mut loads: Vec<u32> = candidates.iter().map(load).collect();
        loads.sort_unstable();
        let hot = loads[((loads.len() - 1) as f64 * HOT_QUANTILE) as usize];
        let coldest = candidates.iter().filter(|one| load(one) < hot).min_by(|a, b| {
            let time = |one: &Candidate| self.targets[one.index].speed.seconds().unwrap_or(0.0);
            time(a).total_cmp(&time(b)).then(self.turn_order(a.index).cmp(&self.turn_order(b.index)))
        });
        coldest
            .or_else(|| candidates.iter().min_by_key(|one| (load(one), self.turn_order(one.index))))
            .map(|one| one.index)
    }

    fn turn_order(&self, index: usize) -> (bool, usize) {
        (index < self.turn, index)
    }

    fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count - 1)
    }

    /// The limit of a target at a moment; `None`: not limited.
    pub(super) fn limit(&self, target: &Target, now: Time) -> Option<u32> {
        self.full_limit(target).map(|limit| {
            let warmth = target.warmth(self.policy.slow_start, now);
            (f64::from(limit) * warmth).ceil().clamp(1.0, f64::from(limit)) as u32
        })
    }

    /// The limit of a target that has proved itself.
    pub(super) fn full_limit(&self, target: &Target) -> Option<u32> {
        match self.policy.concurrency {
            Concurrency::Unlimited => None,
            Concurrency::Limit(limit) => Some(limit),
            Concurrency::Auto => Some(target.auto.limit()),
        }
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
        let expected = match self.policy.concurrency {
            Concurrency::Limit(_) => seconds,
            Concurrency::Unlimited | Concurrency::Auto => {
                seconds * f64::from(target.in_flight + 1) / target.warmth(self.policy.slow_start, now).max(0.1)
            }
        };
        // What has stopped goes on no sooner than after as long again, as far as anybody knows.
        let late = self.hedge_after().unwrap_or(Time::MAX);
        let silence = target.silence(now).filter(|silence| *silence > late);
        Some(silence.map_or(expected, |silence| expected.max(silence.as_secs_f64())))
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

fn members(targets: &slab::Slab<Target>) -> Vec<Member> {
    let serving = targets.iter().filter(|(_, target)| target.serving);
    serving.map(|(index, target)| Member { index, name: target.name, weight: target.weight }).collect()
}

/// Leaves those that are not expected to take longer than the best; gives what the best takes, if anything is
/// known.
fn keep_as_good(candidates: &mut Vec<Candidate>) -> Option<f64> {
    let known = || candidates.iter().filter_map(|one| one.expected);
    let best = known().min_by(f64::total_cmp)?;
    // Those of which nothing is known are at the median, which is the best only if half of the known are as good.
    let as_good = known().filter(|seconds| *seconds <= best * AS_GOOD).count();
    let unknown_too = 2 * as_good >= known().count();
    candidates.retain(|one| one.expected.map_or(unknown_too, |seconds| seconds <= best * AS_GOOD));
    Some(best)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
