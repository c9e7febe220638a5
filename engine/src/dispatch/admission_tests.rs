use super::super::words::*;
use super::*;
use crate::dispatch::{Class, Next, Policy, Sought};

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

    let in_time = service.queue.next(None, NOW + Time::from_secs(29)).map(|((_, ticket), _)| ticket);
    let overloaded = service.next(NOW + Time::from_secs(31));

    assert_eq!((in_time, overloaded), (Some(older), Some(Next::Granted(younger, target))));
}

#[test]
fn it_does_so_after_a_quarter_where_so_long_a_wait_is_no_chance() {
    let mut service = Service::new(Policy { concurrency: Concurrency::Limit(1), ..Policy::default() }, 7);
    let target = service.add(INFO, NOW);
    // A hundred times a tenth of a second is less than a quarter of a minute.
    learn(&mut service, &[(target, 100)]);
    seek(&mut service, NOW);
    let (older, younger) = (service.ticket(), service.ticket());
    service.seek(&ask(older, &[]), NOW);
    service.seek(&ask(younger, &[]), NOW + Time::from_secs(14));
    drop_place(&mut service, target);

    let no_chance = service.no_chance();
    let chance = service.queue.next(no_chance, NOW + Time::from_secs(14)).map(|((_, ticket), _)| ticket);
    let overloaded = service.next(NOW + Time::from_secs(16));

    assert_eq!((chance, overloaded), (Some(older), Some(Next::Granted(younger, target))));
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
fn it_is_told_in_time_to_hear_of_it_though_nothing_else_happens() {
    let mut service = service(Some(1));
    let target = service.add(INFO, NOW);
    learn(&mut service, &[(target, 10)]);
    seek(&mut service, NOW);
    let ticket = service.ticket();
    service.seek(&Ask { deadline: NOW + Time::from_secs(1), ..ask(ticket, &[]) }, NOW);
    let unheard = service.wake_at(NOW);
    service.begun(target, NOW + Time::from_millis(1));

    let at = service.wake_at(NOW).unwrap();

    assert_eq!((unheard, at), (None, NOW + Time::from_millis(980)));
    assert!(service.next(at - Time::from_millis(1)).is_none());
    assert!(matches!(service.next(at), Some(Next::Shed(shed, _)) if shed == ticket));
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
