//! The gateway's figures in Prometheus's text format 0.0.4. `docs/reference/metrics.md` says what each means.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::observe::figures::{BOUNDS, Figures, Histogram};
use crate::proxy::gateway::Gateway;

/// The type to say of [`text`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PREFIX: &str = "unisono_gateway_";

/// All figures as they are now.
pub fn text(gateway: &Gateway) -> String {
    let services: Vec<Service> = gateway
        .backends()
        .iter()
        .map(|backend| {
            let targets = backend.targets();
            Service {
                name: backend.name().to_owned(),
                figures: backend.counted.read(),
                waiting: backend.waiting(),
                in_flight: targets.iter().map(|target| (target.id.clone(), target.in_flight())).collect(),
                places: backend.places(),
                copies_left_out: backend.copies_left_out.get(),
            }
        })
        .collect();
    let mut page = Page::default();
    page.services(&services);
    page.family("connections", "gauge", "Connections that are open.");
    page.sample("connections", &[("side", "client")], gateway.common.connections.count());
    page.family("access_log_dropped_total", "counter", "Lines of the access log that the disk was too slow for.");
    page.sample("access_log_dropped_total", &[], gateway.common.access_log.dropped());
    page.family("clock_refused_total", "counter", "Stamps of requests and answers that were too far ahead to follow.");
    page.sample("clock_refused_total", &[], gateway.common.stamps.refused());
    page.family("table_version", "gauge", "The routing table in force.");
    page.sample("table_version", &[], gateway.table().version);
    page.0
}

struct Service {
    name: String,
    figures: Figures,
    waiting: usize,
    in_flight: BTreeMap<String, u64>,
    places: BTreeMap<String, u64>,
    copies_left_out: u64,
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn services(&mut self, services: &[Service]) {
        self.family("requests_total", "counter", "Requests that are over, by the status that the client got.");
        for one in services {
            for ((method, status), count) in &one.figures.requests {
                let labels = [("service", &*one.name), ("method", method), ("code", &status.to_string())];
                self.sample("requests_total", &labels, count);
            }
        }
        let counts: [(&str, &str, &str, Pick); 4] = [
            (
                "own_answers_total",
                "reason",
                "Answers that the gateway gave itself, and clients that left.",
                |figures| figures.own_answers.iter().map(|(reason, count)| (reason.clone(), *count)).collect(),
            ),
            ("attempts_total", "outcome", "Tries at instances.", |figures| owned(&figures.attempts)),
            ("retries_total", "outcome", "Further tries: made, or not for want of a budget.", |figures| {
                owned(&figures.retries)
            }),
            ("ejections_total", "reason", "Instances that were put aside.", |figures| owned(&figures.ejections)),
        ];
        for (name, label, help, pick) in counts {
            self.family(name, "counter", help);
            for one in services {
                for (value, count) in pick(&one.figures) {
                    self.sample(name, &[("service", &one.name), (label, &value)], count);
                }
            }
        }
        self.family("hedges_total", "counter", "Second tries beside a first that took long.");
        self.each(services, "hedges_total", |one| one.figures.hedges);
        self.family("connection_reuse_total", "counter", "Kept connections that carried one more request.");
        self.each(services, "connection_reuse_total", |one| one.figures.reused);
        self.family("bytes_total", "counter", "Bytes of bodies: in from clients, out to them.");
        for one in services {
            for (direction, count) in [("in", one.figures.bytes_in), ("out", one.figures.bytes_out)] {
                self.sample("bytes_total", &[("service", &one.name), ("direction", direction)], count);
            }
        }
        self.family(
            "copies_left_out_total",
            "counter",
            "Requests that were to be copied to another service, and were not.",
        );
        self.each(services, "copies_left_out_total", |one| one.copies_left_out);
        self.family("queue_depth", "gauge", "Requests that wait for a place.");
        self.each(services, "queue_depth", |one| one.waiting as u64);
        self.family("in_flight", "gauge", "Requests that instances work on.");
        self.each(services, "in_flight", |one| one.in_flight.values().sum());
        let of_instances: [(&str, &str, PickOfInstances); 2] = [
            ("instance_places_busy", "Requests that an instance works on.", |one| &one.in_flight),
            ("instance_places", "Requests at a time that an instance may have.", |one| &one.places),
        ];
        for (name, help, pick) in of_instances {
            self.family(name, "gauge", help);
            for one in services {
                for (instance, count) in pick(one) {
                    self.sample(name, &[("service", &one.name), ("instance", instance)], count);
                }
            }
        }
        self.histogram(services, "request_duration_seconds", "From a request's head to its answer's end.", |figures| {
            &figures.durations
        });
        self.histogram(services, "queue_wait_seconds", "In the queue.", |figures| &figures.waits);
        self.histogram(services, "upstream_duration_seconds", "Answered tries: from place to end.", |figures| {
            &figures.upstream
        });
    }

    fn each(&mut self, services: &[Service], name: &str, value: impl Fn(&Service) -> u64) {
        for one in services {
            self.sample(name, &[("service", &one.name)], value(one));
        }
    }

    fn histogram(&mut self, services: &[Service], name: &str, help: &str, pick: impl Fn(&Figures) -> &Histogram) {
        self.family(name, "histogram", help);
        for one in services {
            let histogram = pick(&one.figures);
            let mut below = 0;
            for (index, count) in histogram.counts.iter().enumerate() {
                below += count;
                let bound = BOUNDS.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
                self.sample(&format!("{name}_bucket"), &[("service", &one.name), ("le", &bound)], below);
            }
            self.sample(&format!("{name}_sum"), &[("service", &one.name)], histogram.sum);
            self.sample(&format!("{name}_count"), &[("service", &one.name)], below);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.0, "{PREFIX}{name}");
        for (index, (label, value)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{opening}{label}=\"{value}\"");
        }
        self.0.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.0, "{value}");
    }
}

type PickOfInstances = fn(&Service) -> &BTreeMap<String, u64>;
type Pick = fn(&Figures) -> Vec<(String, u64)>;

fn owned(counts: &BTreeMap<&'static str, u64>) -> Vec<(String, u64)> {
    counts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}
