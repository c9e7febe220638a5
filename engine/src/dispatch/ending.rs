//! What the end of a request says: of its target, and of how long requests take.

use super::Time;
use super::ask::{Notice, TargetKey};
use super::outcome::{Failure, Outcome};
use super::service::Service;
use super::target::Target;

impl Service {
    /// A connection to the target was made.
    pub fn connected(&mut self, key: TargetKey) {
        if self.target_mut(key).is_some_and(Target::connected) {
            self.notices.push(Notice::Returned(key));
        }
    }

    /// The target has begun to answer a request: it does not stall. True when it was thought to.
    pub fn begun(&mut self, key: TargetKey, now: Time) -> bool {
        self.heard_at = now;
        let returns = self.target_mut(key).is_some_and(|target| target.heard(now));
        if returns {
            self.notices.push(Notice::Returned(key));
        }
        returns
    }

    /// A target has said in an answer how many requests it has in flight, from whomever.
    pub fn reported(&mut self, key: TargetKey, in_flight: u32) {
        if let Some(target) = self.target_mut(key) {
            target.reported = Some((in_flight, target.in_flight));
        }
    }

    /// Gives back the place of a request that is over. `has_begun`: [`Service::begun`] was called for it.
    pub fn finished(&mut self, key: TargetKey, has_begun: bool, outcome: &Outcome, now: Time) {
        let alone_max = self.serving() / 2;
        let left_alone = self.targets.iter().filter(|(_, target)| target.is_left_alone(now)).count();
        let peers = matches!(outcome, Outcome::Failed(_)).then(|| self.peers_share(key, now)).flatten();
        let chance = self.unit();
        let eject = self.policy.eject && left_alone < alone_max;
        let p99 = self.known.p99;
        let is_late = matches!(*outcome, Outcome::Abandoned { after } if p99.is_some_and(|p99| after >= p99));
        let Some(target) = self.target_mut(key) else { return };
        target.in_flight = target.in_flight.saturating_sub(1);
        if !has_begun {
            target.unanswered = target.unanswered.saturating_sub(1);
        }
        let mut notice = None;
        match *outcome {
            Outcome::Ok { took, among } => {
                notice = target.answered(took, among, now).then_some(Notice::Returned(key));
            }
            Outcome::Failed(Failure::Connect) => {
                notice = target.unreachable(now).then_some(Notice::Unreachable(key));
            }
            Outcome::Failed(failure) => {
                if failure == Failure::Timeout {
                    target.auto.overloaded();
                }
                if let Some(cause) = target.health.failed(peers, now)
                    && eject
                {
                    target.health.put_aside(chance, now);
                    notice = Some(Notice::Ejected(key, cause));
                }
            }
            Outcome::Busy { retry_after } if left_alone < alone_max => {
                target.paused_until = target.paused_until.max(now + retry_after);
                target.auto.overloaded();
            }
            Outcome::Busy { .. } => {}
            Outcome::Abandoned { after } => {
                target.speed.at_least(after);
                if is_late && !has_begun {
                    target.silent(now);
                }
            }
        }
        if target.in_flight == 0 && !target.serving {
            self.targets.remove(key.index);
        }
        self.notices.extend(notice);
        match *outcome {
            Outcome::Ok { took, .. } => self.learn(took),
            // A first try that a second one beside it has beaten. Without it only the quick ones would be known, the
            // 99th percentile would sink, and ever more would be tried twice.
            Outcome::Abandoned { after } if is_late => self.learn(after),
            _ => {}
        }
    }

    /// How long a first try has before a second one beside it: the larger of the 99th percentile and twice the
    /// median; `None`: too little is known.
    pub fn hedge_after(&self) -> Option<Time> {
        Some(self.known.p99?.max(self.known.p50? * 2))
    }

    fn peers_share(&mut self, key: TargetKey, now: Time) -> Option<f64> {
        let others = self.targets.iter_mut().filter(|(index, target)| target.serving && *index != key.index);
        let mut shares: Vec<f64> = others.filter_map(|(_, target)| target.health.share(now)).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied()
    }

    fn learn(&mut self, took: Time) {
        self.times.add(took);
        self.known.follow(&self.times);
    }
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
