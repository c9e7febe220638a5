//! Small words for tests of a service: ask, answer, fail, give back.

use super::{Ask, Class, Failure, Outcome, Policy, Service, Sought, TargetInfo, TargetKey, Ticket, Time};

pub(super) const NOW: Time = Time::from_secs(100);
pub(super) const INFO: TargetInfo = TargetInfo { name: 0, weight: 100 };

pub(super) fn service(concurrency: Option<u32>) -> Service {
    Service::new(Policy { concurrency: concurrency.into(), queue_max: Some(2), ..Policy::default() }, 7)
}

pub(super) fn ask(ticket: Ticket, avoid: &[TargetKey]) -> Ask<'_> {
    Ask {
        hash: None,
        ticket,
        avoid,
        own: None,
        is_again: !avoid.is_empty(),
        class: Class::Normal,
        deadline: NOW + Time::from_secs(60),
        bytes: 100,
    }
}

pub(super) fn seek(service: &mut Service, now: Time) -> Sought {
    let ticket = service.ticket();
    service.seek(&ask(ticket, &[]), now)
}

pub(super) fn finish(service: &mut Service, key: TargetKey, outcome: Outcome) {
    service.finished(key, false, &outcome, NOW);
}

pub(super) fn refuse(service: &mut Service, key: TargetKey) {
    finish(service, key, Outcome::Failed(Failure::Connect));
}

pub(super) fn answer(service: &mut Service, key: TargetKey, ms: u64) {
    finish(service, key, Outcome::Ok { took: Time::from_millis(ms), among: 1 });
}

/// Lets each of these answer in so many milliseconds, often enough to be known.
pub(super) fn learn(service: &mut Service, speeds: &[(TargetKey, u64)]) {
    for _ in 0..40 {
        for (key, ms) in speeds {
            service.take(*key, NOW);
            answer(service, *key, *ms);
        }
    }
}

pub(super) fn drop_place(service: &mut Service, key: TargetKey) {
    finish(service, key, Outcome::Abandoned { after: Time::ZERO });
}

pub(super) fn fail(service: &mut Service, key: TargetKey) {
    service.take(key, NOW);
    finish(service, key, Outcome::Failed(Failure::Status));
}
