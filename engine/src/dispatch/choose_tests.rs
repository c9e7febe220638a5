//! Each balance does what its name says.

use super::*;
use crate::dispatch::{Ask, Class, Outcome, Policy, Sought, TargetInfo, hash};

const NOW: Time = Time::from_secs(100);

fn service(policy: Policy) -> Service {
    Service::new(policy, 7)
}

fn balanced(balance: Balance) -> Service {
    service(Policy { balance, ..Policy::default() })
}

fn add(service: &mut Service, name: &str, weight: u32) -> TargetKey {
    service.add(TargetInfo { name: hash(name.as_bytes()), weight }, NOW)
}

fn seek(service: &mut Service, hash: Option<u64>, now: Time) -> Sought {
    let ticket = service.ticket();
    let deadline = now + Time::from_secs(60);
    service.seek(
        &Ask { ticket, avoid: &[], own: None, hash, is_again: false, class: Class::Normal, deadline, bytes: 0 },
        now,
    )
}

fn placed(service: &mut Service, hash: Option<u64>) -> TargetKey {
    match seek(service, hash, NOW) {
        Sought::Placed(key) => key,
        other => panic!("{other:?}"),
    }
}

fn finish(service: &mut Service, key: TargetKey, ms: u64, now: Time) {
    service.begun(key, now);
    service.finished(key, true, &Outcome::Ok { took: Time::from_millis(ms), among: 1 }, now);
}

/// Where `count` requests go, each over before the next.
fn one_by_one(service: &mut Service, count: usize, ms: impl Fn(TargetKey) -> u64) -> Vec<TargetKey> {
    let mut went = Vec::new();
    for _ in 0..count {
        let key = placed(service, None);
        finish(service, key, ms(key), NOW);
        went.push(key);
    }
    went
}

fn share(went: &[TargetKey], key: TargetKey) -> usize {
    went.iter().filter(|one| **one == key).count()
}

#[test]
fn round_robin_takes_each_in_turn_whatever_is_in_flight() {
    let mut service = balanced(Balance::RoundRobin);
    let (a, b, c) = (add(&mut service, "a", 100), add(&mut service, "b", 100), add(&mut service, "c", 100));

    let went: Vec<_> = (0..6).map(|_| placed(&mut service, None)).collect();

    assert_eq!(went, [a, b, c, a, b, c]);
}

#[test]
fn weighted_follows_the_weights_and_spreads_them() {
    let mut service = balanced(Balance::Weighted);
    let (heavy, light) = (add(&mut service, "a", 300), add(&mut service, "b", 100));

    let went = one_by_one(&mut service, 8, |_| 1);

    assert_eq!((share(&went, heavy), share(&went, light)), (6, 2));
    assert!(went.windows(4).all(|four| four.contains(&light)), "{went:?}");
}

#[test]
fn least_requests_goes_by_requests_in_flight_alone() {
    let mut service = balanced(Balance::LeastRequests);
    let (slow, fast) = (add(&mut service, "a", 100), add(&mut service, "b", 100));
    one_by_one(&mut service, 40, |key| if key == slow { 1000 } else { 1 });

    let two = [placed(&mut service, None), placed(&mut service, None)];

    assert!(two.contains(&slow) && two.contains(&fast));
}

#[test]
fn random_reaches_all() {
    let mut service = balanced(Balance::Random);
    let keys = ["a", "b", "c", "d"].map(|name| add(&mut service, name, 100));

    let went = one_by_one(&mut service, 400, |_| 1);

    assert!(keys.iter().all(|key| (60..140).contains(&share(&went, *key))), "{went:?}");
}

#[test]
fn p2c_ewma_takes_the_better_of_two() {
    let mut service = balanced(Balance::P2cEwma);
    let (slow, fast) = (add(&mut service, "a", 100), add(&mut service, "b", 100));

    let went = one_by_one(&mut service, 100, |key| if key == slow { 500 } else { 5 });

    // Of two targets both are always drawn; one of which nothing is known is tried once.
    assert!(share(&went, slow) <= 1 && share(&went, fast) >= 99);
}

#[test]
fn equal_hashes_meet_at_one_target() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut service = service(Policy { balance, hash_load: None, ..Policy::default() });
        for name in ["a", "b", "c", "d"] {
            add(&mut service, name, 100);
        }

        let went: Vec<_> = (0..40u64).map(|number| placed(&mut service, Some(number % 2))).collect();

        assert!(went.chunks(2).all(|pair| *pair == went[..2]), "{balance:?}");
    }
}

#[test]
fn a_bound_on_load_sends_what_is_too_much_to_the_next() {
    for balance in [Balance::RingHash, Balance::Maglev] {
        let mut service = service(Policy { balance, hash_load: Some(1.25), ..Policy::default() });
        let keys = ["a", "b", "c", "d"].map(|name| add(&mut service, name, 100));

        for _ in 0..40 {
            placed(&mut service, Some(1));
        }

        let most = keys.iter().map(|key| service.in_flight(*key)).max();
        assert!(most <= Some(13), "{balance:?}: {most:?}");
    }
}

#[test]
fn what_belongs_nowhere_goes_where_there_is_least() {
    let mut service = balanced(Balance::Maglev);
    let (a, b) = (add(&mut service, "a", 100), add(&mut service, "b", 100));

    let two = [placed(&mut service, None), placed(&mut service, None)];

    assert!(two.contains(&a) && two.contains(&b));
}

#[test]
fn prequal_counts_what_others_send_there() {
    let mut service = balanced(Balance::Prequal);
    let (busy, calm) = (add(&mut service, "a", 100), add(&mut service, "b", 100));
    service.reported(busy, 20);
    service.reported(calm, 1);

    let went = one_by_one(&mut service, 10, |_| 1);

    assert_eq!(share(&went, calm), 10);
}

#[test]
fn a_slow_target_is_asked_again_when_nothing_was_heard_of_it() {
    let mut service = balanced(Balance::Fastest);
    let (slow, _fast) = (add(&mut service, "a", 100), add(&mut service, "b", 100));
    one_by_one(&mut service, 100, |key| if key == slow { 100 } else { 10 });
    let later = NOW + UNHEARD + Time::from_millis(1);

    let first = seek(&mut service, None, later);
    let second = seek(&mut service, None, later);

    assert_eq!(first, Sought::Placed(slow));
    assert!(second != Sought::Placed(slow));
}

/// One of two targets ten times as fast, both known, the fast one busy.
fn fast_one_is_busy(hold: bool) -> (Service, TargetKey, TargetKey) {
    let mut service = service(Policy { concurrency: Concurrency::Limit(1), hold, ..Policy::default() });
    let (slow, fast) = (add(&mut service, "a", 100), add(&mut service, "b", 100));
    for _ in 0..60 {
        let both = [placed(&mut service, None), seek_any(&mut service)];
        for key in both {
            finish(&mut service, key, if key == slow { 100 } else { 10 }, NOW);
        }
    }
    let taken = placed(&mut service, None);
    assert_eq!(taken, fast);
    (service, slow, fast)
}

fn seek_any(service: &mut Service) -> TargetKey {
    let held = std::mem::replace(&mut service.policy.hold, false);
    let key = placed(service, None);
    service.policy.hold = held;
    key
}

#[test]
fn a_request_is_held_for_a_much_faster_target_if_that_is_wished() {
    let (mut without, slow, _) = fast_one_is_busy(false);
    let (mut with, _, fast) = fast_one_is_busy(true);

    let answers = (seek(&mut without, None, NOW), seek(&mut with, None, NOW));
    finish(&mut with, fast, 10, NOW);

    assert_eq!(answers, (Sought::Placed(slow), Sought::Waiting));
    assert!(matches!(with.next(NOW), Some(crate::dispatch::Next::Granted(_, key)) if key == fast));
}

#[test]
fn a_request_is_held_for_a_while_only() {
    let (mut service, slow, _) = fast_one_is_busy(true);
    seek(&mut service, None, NOW);

    let mut now = NOW;
    let granted = loop {
        now = service.wake_at(now).expect("it is looked at again");
        if let Some(granted) = service.next(now) {
            break granted;
        }
    };

    assert!((NOW + Time::from_millis(40)..=NOW + Time::from_millis(80)).contains(&now), "{:?}", now - NOW);
    assert!(matches!(granted, crate::dispatch::Next::Granted(_, key) if key == slow));
}

#[test]
fn a_learned_limit_is_kept_to() {
    let mut service = service(Policy { concurrency: Concurrency::Auto, ..Policy::default() });
    let key = add(&mut service, "a", 100);
    // It works on two at a time: with more in flight each takes longer.
    for number in 0..3000u32 {
        let limit = service.targets[key.index].auto.limit();
        let among = limit - number % limit.min(3);
        let took = Time::from_millis(u64::from(10 * among.max(2) / 2));
        assert_eq!(placed(&mut service, None), key);
        service.finished(key, false, &Outcome::Ok { took, among }, NOW);
    }

    let taken = (0..10).filter(|_| matches!(seek(&mut service, None, NOW), Sought::Placed(_))).count();

    assert!((2..=3).contains(&taken), "{taken}");
}
