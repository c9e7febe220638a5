//! Which requests are not taken into the queue, and when the queue is longer than chance makes it.

use super::Time;
use super::ask::{Ask, Refusal};
use super::policy::Concurrency;
use super::service::Service;

/// A wait of so many times what the queue takes for one request is no chance; see [`Service::no_chance`].
const NO_CHANCE_MEANS: f64 = 100.0;

impl Service {
    /// Why a request is not taken in; `None`: it is.
    pub(super) fn refusal(&self, ask: &Ask<'_>, now: Time) -> Option<Refusal> {
        let (places, _) = self.places();
        let queue_max = self.policy.queue_max.unwrap_or_else(|| {
            places.map_or(10_000, |places| {
                usize::try_from(places).unwrap_or(usize::MAX).saturating_mul(50).clamp(128, 10_000)
            })
        });
        if self.queue.len() >= queue_max || self.queue.bytes().saturating_add(ask.bytes) > self.policy.queue_bytes_max {
            return Some(Refusal::QueueFull);
        }
        let (mean, p50) = (self.known.mean?, self.known.p50?);
        let places = places.filter(|places| *places > 0)?;
        let before = self.queue.before(ask.class) + 1;
        let wait = Time::try_from_secs_f64(before as f64 * mean / places as f64).ok()?;
        (now + wait + p50 > ask.deadline).then_some(Refusal::Late { wait })
    }

    /// Places in all (`None`: not limited) and those taken.
    pub(super) fn places(&self) -> (Option<u64>, u64) {
        let serving = self.targets.iter().filter(|(_, target)| target.serving);
        let (mut places, mut taken) = (Some(0u64), 0u64);
        for (_, target) in serving {
            places = places.zip(self.full_limit(target)).map(|(places, limit)| places + u64::from(limit));
            taken += u64::from(target.in_flight);
        }
        // Of no targets nothing is known, not even that there will be a limit.
        (places.filter(|_| self.policy.concurrency != Concurrency::Unlimited), taken)
    }

    /// A wait that a queue served in order does not come to by chance: with `n` places and mean time `m`, waits at a
    /// utilisation of 0.9 are about exponential with mean `10 m / n` (M/M/n, Kleinrock, *Queueing Systems* I, 3.5).
    pub(super) fn no_chance(&self) -> Option<Time> {
        let places = self.places().0.filter(|places| *places > 0)?;
        Time::try_from_secs_f64(NO_CHANCE_MEANS * self.known.mean? / places as f64).ok()
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
