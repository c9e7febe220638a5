use super::super::words::*;
use super::*;
use crate::dispatch::{Cause, Next, Policy, Sought};

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
fn a_target_that_stalls_beside_a_free_place_is_waited_for_without_a_time() {
    let mut service = service(Some(2));
    let (frozen, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(frozen, 10), (other, 10)]);
    service.take(frozen, NOW);
    let later = NOW + Time::from_millis(1100);
    service.take(other, later);
    service.begun(other, later);
    seek(&mut service, later);
    seek(&mut service, later);

    let at = service.wake_at(later);

    assert_eq!((service.waiting(), at), (1, None));
}

#[test]
fn a_target_that_is_later_than_nearly_all_answers_is_left_for_the_others() {
    let mut service = service(Some(4));
    let (paused, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(paused, 10), (other, 10)]);
    service.take(paused, NOW);
    let late = NOW + service.hedge_after().unwrap() + Time::from_millis(1);
    service.take(other, late);
    service.take(other, late);

    let meanwhile = seek(&mut service, late);
    service.begun(paused, late);
    let then = seek(&mut service, late);

    assert_eq!((meanwhile, then), (Sought::Placed(other), Sought::Placed(paused)));
}

#[test]
fn a_target_that_was_given_up_on_comes_last_for_as_long_again() {
    let mut service = service(Some(2));
    let (paused, other) = (service.add(INFO, NOW), service.add(INFO, NOW));
    learn(&mut service, &[(paused, 10), (other, 10)]);
    let given_up = NOW + Time::from_millis(50);
    service.take(paused, NOW);
    service.finished(paused, false, &Outcome::Abandoned { after: Time::from_millis(50) }, given_up);
    service.take(other, given_up);

    let soon = seek(&mut service, given_up + Time::from_millis(10));
    let in_need = seek(&mut service, given_up + Time::from_millis(10));
    drop_place(&mut service, paused);
    let later = seek(&mut service, given_up + Time::from_millis(50));

    assert_eq!((soon, in_need, later), (Sought::Placed(other), Sought::Placed(paused), Sought::Placed(paused)));
}

#[test]
fn tries_that_a_second_one_has_beaten_count_as_late() {
    let mut service = service(Some(4));
    let target = service.add(INFO, NOW);
    for number in 0..2000 {
        service.take(target, NOW);
        // One of two hundred takes a second, and is given up a little after the second try has begun.
        match (number % 200, service.hedge_after()) {
            (0, Some(after)) => {
                finish(&mut service, target, Outcome::Abandoned { after: after + Time::from_millis(10) });
            }
            _ => answer(&mut service, target, if number % 100 == 1 { 30 } else { 10 }),
        }
    }

    let after = service.hedge_after().unwrap();

    assert!(after >= Time::from_millis(30), "{after:?}");
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
