//! `bench-instances PLACES SERVICE SEED BODY PAUSES PORT[xSPEED]...`: instances on these ports of loopback.
//!
//! PLACES are requests at a time for each; SERVICE is as in `chance`, SPEED multiplies it; BODY is bytes of an
//! answer; PAUSES is `MS:EVERY_MS`, random ones of each instance, or `-`. Commands come by standard input, one a line,
//! and each gets one line of JSON: `log`, `reset`, `speed I FACTOR`, `pause I MS`, `mode I serve|fail|busy|refuse`. Ends with
//! its standard input.

mod chance;
mod instance;
mod serve;

use std::process::ExitCode;

use chance::Service;
use instance::Instance;
use serve::{Pauses, Server};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let made = make(&arguments);
    match made.and_then(|mut server| {
        println!("ready");
        server.run().map_err(|error| error.to_string())
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-instances: {error}");
            ExitCode::FAILURE
        }
    }
}

fn make(arguments: &[String]) -> Result<Server, String> {
    let [places, service, seed, body, pauses, targets @ ..] = arguments else {
        return Err("usage: bench-instances PLACES SERVICE SEED BODY PAUSES PORT[xSPEED]...".into());
    };
    // Without it the kernel may wake this thread 50 microseconds late.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).map_err(|error| error.to_string())?;
    let places = number(places)?;
    let (mut ports, mut instances) = (Vec::new(), Vec::new());
    for target in targets {
        let (port, speed) = target.split_once('x').unwrap_or((target, "1"));
        ports.push(number(port)?);
        instances.push(Instance::new(places, number(speed)?));
    }
    let service = Service::parse(service)?;
    Server::new(ports, instances, service, number(seed)?, pauses_of(pauses)?, number(body)?)
        .map_err(|error| format!("cannot listen: {error}"))
}

fn pauses_of(text: &str) -> Result<Pauses, String> {
    if text == "-" {
        return Ok(None);
    }
    let (span, every) = text.split_once(':').ok_or_else(|| format!("{text:?}: MS:EVERY_MS would be right"))?;
    Ok(Some((number::<u64>(span)? * 1_000_000, number::<f64>(every)? * 1e6)))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not the number that belongs here"))
}
