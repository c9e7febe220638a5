//! What holds for every run, and dispatch's guards in it. Seeds are fixed: a run is the same each time. Beside
//! queueing theory it is held from Python, where it is built to be fast.

use serde_json::{Value, json};

use super::run;

/// Equal instances of one place each, exponential work of 10 ms.
fn scenario(count: usize, utilisation: f64) -> Value {
    json!({
        "seed": 3, "requests": 60_000, "warm_up": 6_000, "utilisation": utilisation, "mean_ms": 10.0,
        "service": {"kind": "exponential"}, "instances": [{"count": count, "places": 1}],
        "concurrency": 1, "queue_max": 1_000_000,
    })
}

fn played(scenario: &Value) -> Value {
    serde_json::from_str(&run(&scenario.to_string()).unwrap()).unwrap()
}

#[test]
fn the_same_scenario_gives_the_same_report() {
    let mut faults = scenario(4, 0.8);
    faults["instances"][0]["pauses"] = json!({"every_ms": 500.0, "for_ms": 50.0});
    faults["hedge"] = json!(0.02);

    assert_eq!(run(&faults.to_string()), run(&faults.to_string()));
}

#[test]
fn every_request_ends_once() {
    let mut faults = scenario(4, 1.5);
    faults["instances"] = json!([
        {"count": 3, "places": 1, "pauses": {"every_ms": 500.0, "for_ms": 50.0}},
        {"count": 1, "places": 1, "fails": {"share": 0.5, "after_ms": 0.1}},
    ]);
    faults["deadline_ms"] = json!(200.0);
    faults["retries"] = json!(2);
    faults["hedge"] = json!(0.02);

    let report = played(&faults);

    let ended: u64 =
        ["good", "late", "refused", "shed", "failed"].iter().map(|ending| report[ending].as_u64().unwrap()).sum();
    assert_eq!((ended, report["requests"].as_u64()), (54_000, Some(54_000)));
}

#[test]
fn an_instance_that_fails_fast_gets_few_requests() {
    let mut failing = scenario(8, 0.7);
    failing["instances"] = json!([
        {"count": 7, "places": 1}, {"count": 1, "places": 1, "fails": {"share": 1.0, "after_ms": 0.1}},
    ]);
    failing["utilisation"] = json!(0.6);
    failing["retries"] = json!(2);
    let mut unguarded = failing.clone();
    unguarded["eject"] = json!(false);

    let shares = [failing, unguarded].map(|scenario| {
        let tries: Vec<u64> = serde_json::from_value(played(&scenario)["tries"].clone()).unwrap();
        tries[7] as f64 / tries.iter().sum::<u64>() as f64
    });

    assert!(shares[0] < 0.01 && shares[1] > 0.05, "{shares:?}");
}

#[test]
fn two_gateways_that_do_not_know_of_each_other_wait_longer_than_one() {
    let one = scenario(8, 0.8);
    let mut two = one.clone();
    two["dispatchers"] = json!(2);

    let waits = [one, two].map(|scenario| played(&scenario)["wait_ms"]["mean"].as_f64().unwrap());

    assert!(waits[1] > waits[0], "{waits:?}");
}

#[test]
fn a_wrong_scenario_is_told_what_would_be_right() {
    let mut none = scenario(8, 0.7);
    none["instances"] = json!([]);

    assert_eq!(run(&none.to_string()).unwrap_err(), "the number of instances is 0; 1 to 10000 would be right");
}
