//! What a table is read as, and which are refused.

use super::*;

#[test]
fn the_least_table_is_read_with_defaults() {
    let table = Table::parse(
        br#"{"version": 3, "listeners": [{"address": "127.0.0.1:80", "rules": [{"service": "a/b"}]}],
             "services": {"a/b": {"targets": []}}}"#,
    )
    .unwrap();

    assert_eq!((table.version, table.listeners[0].rules[0].path.as_str()), (3, "/"));
    assert_eq!(table.services["a/b"].timeout_ms, Some(60_000));
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = Table::parse(br#"{"version": "one"}"#).unwrap_err();
    let missing =
        Table::parse(br#"{"version": 1, "listeners": [{"address": "127.0.0.1:80", "rules": [{"service": "a/b"}]}]}"#)
            .unwrap_err();
    let twice =
        Table::parse(br#"{"version": 1, "listeners": [{"address": "127.0.0.1:80"}, {"address": "127.0.0.1:80"}]}"#)
            .unwrap_err();

    assert!(wrong.contains("one") && missing.contains("a/b") && twice.contains("127.0.0.1:80"));
}

/// A table with one service, whose fields are these.
fn with_service(fields: &str) -> Result<Table, String> {
    Table::parse(format!(r#"{{"version": 1, "services": {{"a/b": {{{fields}}}, "a/c": {{}}}}}}"#).as_bytes())
}

/// A table with one listener, whose fields are these.
fn with_listener(fields: &str) -> Result<Table, String> {
    let listener = format!(r#"{{"address": "127.0.0.1:80", {fields}}}"#);
    Table::parse(format!(r#"{{"version": 1, "listeners": [{listener}], "services": {{"a/b": {{}}}}}}"#).as_bytes())
}

#[test]
fn attempts_of_older_tables_are_read() {
    let table = with_service(r#""attempts": 7, "queue_max": 5"#).unwrap();

    assert_eq!(table.services["a/b"].retry, Retry { attempts: 7, ..Retry::default() });
}

#[test]
fn what_is_written_is_read_again() {
    let table = with_service(
        r#""concurrency": "auto", "balance": "ring_hash", "hash_on": {"cookie": "id"}, "retry": {"attempts": 2},
           "hedge": {}, "mirror": {"service": "a/c", "percent": 5}, "sticky": {"cookie": "at"},
           "split": [{"revision": "2", "weight": 5, "header": {"name": "x-canary"}}]"#,
    )
    .unwrap();

    let json = serde_json::to_value(&table).unwrap();
    let again = Table::parse(json.to_string().as_bytes()).unwrap();

    assert_eq!(json, serde_json::to_value(again).unwrap());
    assert_eq!(json["services"]["a/b"]["concurrency"], "auto");
    assert_eq!(json["services"]["a/b"]["hedge"]["budget"], 0.02);
}

#[test]
fn policies_that_make_no_sense_are_refused_by_name() {
    for (fields, name) in [
        (r#""concurrency": 0"#, "0"),
        (r#""concurrency": "many""#, "many"),
        (r#""balance": "luck""#, "luck"),
        (r#""balance": "maglev""#, "hash_on"),
        (r#""hash_on": {"header": "a b"}"#, "hash_on.header"),
        (r#""hash_load": 0.5"#, "hash_load"),
        (r#""attempts": 0"#, "retry.attempts"),
        (r#""retry": {"budget": 2}"#, "retry.budget"),
        (r#""retry": {"floor_per_s": -1}"#, "retry.floor_per_s"),
        (r#""retry": {"statuses": [200]}"#, "retry.statuses"),
        (r#""retry": {"backoff_ms": 9, "backoff_max_ms": 8}"#, "retry.backoff_max_ms"),
        (r#""hedge": {"after_ms": 0}"#, "hedge.after_ms"),
        (r#""hedge": {"budget": -1}"#, "hedge.budget"),
        (r#""sticky": {"cookie": ""}"#, "sticky.cookie"),
        (r#""mirror": {"service": "a/c", "percent": 101}"#, "mirror.percent"),
        (r#""mirror": {"service": "a/d", "percent": 1}"#, "a/d"),
        (r#""mirror": {"service": "a/b", "percent": 1}"#, "itself"),
        (r#""split": [{"revision": "2", "weight": 60}, {"revision": "3", "weight": 60}]"#, "120"),
        (r#""split": [{"revision": "2", "weight": 1}, {"revision": "2", "weight": 1}]"#, "twice"),
    ] {
        let fault = with_service(fields).unwrap_err();

        assert!(fault.contains(name), "{fields}: {fault}");
    }
}

#[test]
fn listeners_that_make_no_sense_are_refused_by_name() {
    let rule = r#"{"service": "a/b"}"#;
    for (fields, name) in [
        (format!(r#""mode": "udp", "rules": [{rule}]"#), "udp"),
        (r#""mode": "tcp", "rules": []"#.into(), "0 rules"),
        (format!(r#""mode": "tcp", "rules": [{rule}, {rule}]"#), "2 rules"),
        (r#""mode": "tcp", "rules": [{"service": "a/b", "path": "/a"}]"#.into(), "path /"),
        (format!(r#""tls": {{"certificates": []}}, "rules": [{rule}]"#), "certificate"),
        (r#""rules": [{"service": "a/b", "priority": "first"}]"#.into(), "first"),
    ] {
        let fault = with_listener(&fields).unwrap_err();

        assert!(fault.contains(name), "{fields}: {fault}");
    }
}
