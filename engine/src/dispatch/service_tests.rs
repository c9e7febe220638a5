use super::super::words::*;
use super::*;

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
