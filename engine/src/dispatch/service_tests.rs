use super::*;

const NOW: Time = Time::from_secs(100);
const INFO: TargetInfo = TargetInfo { name: 0, weight: 100 };

fn service(concurrency: Option<u32>) -> Service {
    Service::new(Policy { concurrency: concurrency.into(), queue_max: Some(2), ..Policy::default() }, 7)
}

fn ask(ticket: Ticket, avoid: &[TargetKey]) -> Ask<'_> {
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

fn seek(service: &mut Service, now: Time) -> Sought {
    let ticket = service.ticket();
    service.seek(&ask(ticket, &[]), now)
}

fn finish(service: &mut Service, key: TargetKey, outcome: Outcome) {
    service.finished(key, false, &outcome, NOW);
}

fn refuse(service: &mut Service, key: TargetKey) {
    finish(service, key, Outcome::Failed(Failure::Connect));
}

fn answer(service: &mut Service, key: TargetKey, ms: u64) {
    finish(service, key, Outcome::Ok { took: Time::from_millis(ms), among: 1 });
}

/// Lets each of these answer in so many milliseconds, often enough to be known.
fn learn(service: &mut Service, speeds: &[(TargetKey, u64)]) {
    for _ in 0..40 {
        for (key, ms) in speeds {
            service.take(*key, NOW);
            answer(service, *key, *ms);
        }
    }
}

fn drop_place(service: &mut Service, key: TargetKey) {
    finish(service, key, Outcome::Abandoned { after: Time::ZERO });
}

fn fail(service: &mut Service, key: TargetKey) {
    service.take(key, NOW);
    finish(service, key, Outcome::Failed(Failure::Status));
}

#[test]
fn equal_targets_are_taken_in_turn() {
    let mut service = service(None);
    let (a, b) = (service.add(INFO, NOW), service.add(INFO, NOW));

    let taken: Vec<_> = (0..4).map(|_| seek(&mut service, NOW)).collect();

    assert_eq!(taken, [a, b, a, b].map(Sought::Placed));
}

#[test]
fn the_target_with_fewest_in_flight_is_taken() {
    let mut service = service(None);
    let (a, b) = (service.add(INFO, NOW), service.add(INFO, NOW));
    seek(&mut service, NOW);
    seek(&mut service, NOW);
    seek(&mut service, NOW);
    drop_place(&mut service, b);

    let taken = seek(&mut service, NOW);

    assert_eq!((taken, service.in_flight(a), service.in_flight(b)), (Sought::Placed(b), 2, 1));
}

#[test]
fn the_oldest_request_gets_the_place_that_frees() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    seek(&mut service, NOW);
    let (older, younger) = (service.ticket(), service.ticket());
    service.seek(&ask(younger, &[]), NOW);
    service.seek(&ask(older, &[target]), NOW);
    drop_place(&mut service, target);

    let granted = service.next(NOW);

    assert_eq!((granted, service.waiting()), (Some(Next::Granted(older, target)), 1));
}

#[test]
fn a_full_queue_refuses_new_requests_but_not_returning_ones() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    for _ in 0..3 {
        seek(&mut service, NOW);
    }
    let returning = service.ticket();

    let answers = (seek(&mut service, NOW), service.seek(&ask(returning, &[target]), NOW));

    assert_eq!(answers, (Sought::Refused(Refusal::QueueFull), Sought::Waiting));
}

#[test]
fn a_target_that_refused_is_set_aside_while_there_is_another() {
    let mut service = service(None);
    let (a, b) = (service.add(INFO, NOW), service.add(INFO, NOW));
    refuse(&mut service, a);

    let taken: Vec<_> = (0..3).map(|_| seek(&mut service, NOW + Time::from_millis(99))).collect();
    let after = seek(&mut service, NOW + Time::from_millis(100));

    assert_eq!((taken, after), (vec![Sought::Placed(b); 3], Sought::Placed(a)));
}

#[test]
fn the_only_target_is_tried_again_soon_though_it_refused() {
    let mut service = service(None);
    let only = service.add(INFO, NOW);
    refuse(&mut service, only);

    let at_once = seek(&mut service, NOW);
    let soon = service.wake_at(NOW);

    assert_eq!((at_once, soon), (Sought::Waiting, Some(NOW + Time::from_millis(10))));
    assert!(service.next(NOW).is_none());
    assert!(service.next(NOW + Time::from_millis(10)).is_some());
}

#[test]
fn setting_aside_grows_to_a_bound_and_ends_with_an_answer() {
    let mut service = service(None);
    let target = service.add(INFO, NOW);
    for _ in 0..40 {
        refuse(&mut service, target);
    }
    seek(&mut service, NOW);

    let bound = service.wake_at(NOW);
    service.connected(target);

    assert_eq!((bound, service.wake_at(NOW)), (Some(NOW + Time::from_millis(100)), None));
    assert!(service.next(NOW).is_some());
}

#[test]
fn a_request_avoids_the_target_it_failed_on_unless_there_is_no_other() {
    let mut service = service(Some(1));
    let (a, b) = (service.add(INFO, NOW), service.add(INFO, NOW));
    let ticket = service.ticket();

    let first = service.seek(&ask(ticket, &[a]), NOW);
    let second = service.seek(&ask(ticket, &[a]), NOW);

    assert_eq!((first, second), (Sought::Placed(b), Sought::Placed(a)));
}

#[test]
fn a_removed_target_gets_nothing_and_is_counted_to_its_last_request() {
    let mut service = service(None);
    let target = service.add(INFO, NOW);
    seek(&mut service, NOW);
    service.remove(target);

    let refused = seek(&mut service, NOW);

    assert_eq!((refused, service.in_flight(target), service.serving()), (Sought::Waiting, 1, 0));
    drop_place(&mut service, target);
    assert_eq!(service.in_flight(target), 0);
}

#[test]
fn an_old_key_never_names_a_newer_target() {
    let mut service = service(None);
    let old = service.add(INFO, NOW);
    service.remove(old);
    let new = service.add(INFO, NOW);

    service.remove(old);

    assert_eq!(seek(&mut service, NOW), Sought::Placed(new));
}

#[test]
fn the_fastest_free_place_is_taken() {
    let mut service = service(Some(1));
    let (slow, fast) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(slow, 30), (fast, 10)]);

    let taken = (seek(&mut service, NOW), seek(&mut service, NOW));

    assert_eq!(taken, (Sought::Placed(fast), Sought::Placed(slow)));
}

#[test]
fn fast_failures_do_not_make_a_target_look_fast() {
    let mut service = service(Some(1));
    let (failing, good) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(failing, 11), (good, 10)]);
    for _ in 0..4 {
        fail(&mut service, failing);
        service.take(good, NOW);
        answer(&mut service, good, 10);
    }

    assert_eq!(service.targets[failing.index].speed.seconds().map(|s| (s * 1000.0).round()), Some(11.0));
}

#[test]
fn a_target_that_fails_again_and_again_gets_one_request_in_five_seconds() {
    let mut service = service(Some(1));
    let (failing, good) = (service.add(INFO, NOW), service.add(INFO, NOW));
    for _ in 0..5 {
        fail(&mut service, failing);
    }

    let notices = service.notices();
    let at_once = (seek(&mut service, NOW), seek(&mut service, NOW));
    let later = NOW + Time::from_secs(7);
    let probe = service.next(later);

    assert_eq!(notices, [Notice::Ejected(failing, Cause::Consecutive)]);
    assert_eq!(at_once, (Sought::Placed(good), Sought::Waiting));
    assert!(matches!(probe, Some(Next::Granted(_, key)) if key == failing), "{probe:?}");
    service.finished(failing, false, &Outcome::Ok { took: Time::from_millis(1), among: 1 }, later);
    assert_eq!(service.notices(), [Notice::Returned(failing)]);
    assert_eq!(seek(&mut service, later), Sought::Placed(failing));
}

#[test]
fn a_slow_target_gets_its_try_too() {
    let mut service = service(Some(1));
    let (failing, good) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(failing, 90), (good, 10)]);
    for _ in 0..5 {
        fail(&mut service, failing);
    }

    let tried = seek(&mut service, NOW + Time::from_secs(7));

    assert_eq!(tried, Sought::Placed(failing));
}

#[test]
fn never_more_than_half_are_put_aside() {
    let mut service = service(None);
    let keys = [0; 4].map(|_| service.add(INFO, NOW));
    for key in keys {
        for _ in 0..20 {
            fail(&mut service, key);
        }
    }

    let ejected = service.notices().len();

    assert_eq!(ejected, 2);
}

#[test]
fn ejection_can_be_turned_off() {
    let mut service = Service::new(Policy { eject: false, ..Policy::default() }, 7);
    let (failing, _) = (service.add(INFO, NOW), service.add(INFO, NOW));
    for _ in 0..20 {
        fail(&mut service, failing);
    }

    assert_eq!(service.notices(), []);
}

#[test]
fn a_target_that_asks_to_be_left_alone_is() {
    let mut service = service(None);
    let (busy, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    service.take(busy, NOW);
    finish(&mut service, busy, Outcome::Busy { retry_after: Time::from_secs(2) });

    let taken: Vec<_> = (0..3).map(|_| seek(&mut service, NOW)).collect();
    let after = seek(&mut service, NOW + Time::from_secs(2));

    assert_eq!((taken, after), (vec![Sought::Placed(other); 3], Sought::Placed(busy)));
}

#[test]
fn a_target_that_answers_nothing_while_others_do_gets_nothing_until_it_answers() {
    let mut service = service(Some(2));
    let (frozen, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(frozen, 10), (other, 10)]);
    service.take(frozen, NOW);
    let later = NOW + Time::from_millis(1100);
    service.take(other, later);
    service.begun(other, later);

    let taken = (seek(&mut service, later), seek(&mut service, later));
    let stalled = service.notices();
    service.begun(frozen, later);

    assert_eq!((taken, stalled), ((Sought::Placed(other), Sought::Waiting), vec![Notice::Stalled(frozen)]));
    assert_eq!(service.notices(), [Notice::Returned(frozen)]);
    assert!(matches!(service.next(later), Some(Next::Granted(_, key)) if key == frozen));
}

#[test]
fn a_long_answer_that_has_begun_is_no_stall() {
    let mut service = service(Some(2));
    let (streaming, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(streaming, 10), (other, 10)]);
    service.take(streaming, NOW);
    service.begun(streaming, NOW);
    let later = NOW + Time::from_secs(60);
    service.take(other, later);
    service.begun(other, later);

    let taken = seek(&mut service, later);

    assert_eq!((taken, service.notices()), (Sought::Placed(streaming), vec![]));
}

#[test]
fn a_target_that_joins_others_begins_with_one_place() {
    let mut service = service(Some(4));
    let old = service.add(INFO, NOW);
    learn(&mut service, &[(old, 10)]);
    let new = service.add(INFO, NOW);

    let taken: Vec<_> = (0..6).map(|_| seek(&mut service, NOW)).collect();
    let before = (service.in_flight(old), service.in_flight(new));
    let granted = service.next(NOW + Time::from_secs(5));

    assert_eq!((taken[5], before), (Sought::Waiting, (4, 1)));
    assert!(matches!(granted, Some(Next::Granted(_, key)) if key == new), "{granted:?}");
}

#[test]
fn targets_that_begin_together_have_all_their_places() {
    let mut service = service(Some(4));
    let (a, b) = (service.add(INFO, NOW), service.add(INFO, NOW));

    for _ in 0..8 {
        seek(&mut service, NOW);
    }

    assert_eq!((service.in_flight(a), service.in_flight(b)), (4, 4));
}

#[test]
fn a_request_that_would_wait_for_too_long_is_refused_at_once() {
    let mut service = Service::new(Policy { concurrency: Concurrency::Limit(1), ..Policy::default() }, 7);
    let target = service.add(INFO, NOW);
    learn(&mut service, &[(target, 100)]);
    for _ in 0..11 {
        seek(&mut service, NOW);
    }
    let ticket = service.ticket();

    let refused = service.seek(&Ask { deadline: NOW + Time::from_secs(1), ..ask(ticket, &[]) }, NOW);

    assert!(matches!(refused, Sought::Refused(Refusal::Late { wait }) if wait.as_millis() == 1100), "{refused:?}");
}

#[test]
fn the_newest_goes_first_once_the_oldest_has_used_half_of_its_time() {
    let mut service = Service::new(Policy { concurrency: Concurrency::Limit(1), ..Policy::default() }, 7);
    let target = service.add(INFO, NOW);
    seek(&mut service, NOW);
    let (older, younger) = (service.ticket(), service.ticket());
    service.seek(&ask(older, &[]), NOW);
    service.seek(&ask(younger, &[]), NOW + Time::from_secs(31));
    drop_place(&mut service, target);

    let in_time = service.queue.next(NOW + Time::from_secs(29)).map(|((_, ticket), _)| ticket);
    let overloaded = service.next(NOW + Time::from_secs(31));

    assert_eq!((in_time, overloaded), (Some(older), Some(Next::Granted(younger, target))));
}

#[test]
fn a_request_that_can_not_be_in_time_any_more_takes_no_place() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    learn(&mut service, &[(target, 100)]);
    seek(&mut service, NOW);
    let ticket = service.ticket();
    service.seek(&Ask { deadline: NOW + Time::from_millis(300), ..ask(ticket, &[]) }, NOW);
    drop_place(&mut service, target);

    let shed = service.next(NOW + Time::from_millis(260));

    assert!(matches!(shed, Some(Next::Shed(known, Refusal::Late { .. })) if known == ticket), "{shed:?}");
}

#[test]
fn an_old_request_is_told_while_the_newest_are_served() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    learn(&mut service, &[(target, 100)]);
    seek(&mut service, NOW);
    let (old, new) = (service.ticket(), service.ticket());
    service.seek(&Ask { deadline: NOW + Time::from_millis(600), ..ask(old, &[]) }, NOW);
    service.seek(&ask(new, &[]), NOW + Time::from_millis(500));
    drop_place(&mut service, target);

    let done: Vec<_> = std::iter::from_fn(|| service.next(NOW + Time::from_millis(570))).collect();

    assert!(matches!(done[..], [Next::Shed(shed, _), Next::Granted(granted, _)] if (shed, granted) == (old, new)));
}

#[test]
fn a_higher_class_goes_first() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    seek(&mut service, NOW);
    let (low, high) = (service.ticket(), service.ticket());
    service.seek(&Ask { class: Class::Low, ..ask(low, &[]) }, NOW);
    service.seek(&Ask { class: Class::High, ..ask(high, &[]) }, NOW);
    drop_place(&mut service, target);

    assert_eq!(service.next(NOW), Some(Next::Granted(high, target)));
}

#[test]
fn a_second_try_takes_an_idle_place_elsewhere_and_only_while_nobody_waits() {
    let mut service = service(Some(1));
    let keys = [0; 8].map(|_| service.add(INFO, NOW));
    service.take(keys[0], NOW);

    let idle = service.seek_idle(&[keys[0]], NOW);
    for key in &keys[2..7] {
        service.take(*key, NOW);
    }
    let busy = service.seek_idle(&[keys[0]], NOW);

    assert!(idle.is_some_and(|key| key != keys[0]));
    assert_eq!(busy, None);
}
