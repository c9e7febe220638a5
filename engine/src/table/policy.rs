//! How a service's requests are to be treated, as the table says it: words, defaults and the check of each.
//! What they do is the dispatcher's and the proxy's.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::dispatch;

/// Requests at a time per target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// This many.
    Limit(u32),
    /// As many as are learned to do well.
    Auto,
}

/// What a target is spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in clear text, by prior knowledge.
    H2,
}

/// Which target a request goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One queue, bound late: the free place where the answer is expected first.
    #[default]
    Fastest,
    /// The one with the fewest requests.
    LeastRequests,
    /// Each in turn.
    RoundRobin,
    /// Each in turn, as often as its weight says.
    Weighted,
    /// Any.
    Random,
    /// The better of two by latency and requests in flight.
    P2cEwma,
    /// A ring of points.
    RingHash,
    /// A table of permutations.
    Maglev,
    /// Hot and cold by the load that instances report.
    Prequal,
}

impl Balance {
    /// Whether `hash_on` decides.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

impl From<Balance> for dispatch::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::Fastest => Self::Fastest,
            Balance::LeastRequests => Self::LeastRequests,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Weighted => Self::Weighted,
            Balance::Random => Self::Random,
            Balance::P2cEwma => Self::P2cEwma,
            Balance::RingHash => Self::RingHash,
            Balance::Maglev => Self::Maglev,
            Balance::Prequal => Self::Prequal,
        }
    }
}

impl From<Option<Concurrency>> for dispatch::Concurrency {
    fn from(concurrency: Option<Concurrency>) -> Self {
        match concurrency {
            Some(Concurrency::Limit(limit)) => Self::Limit(limit),
            Some(Concurrency::Auto) => Self::Auto,
            None => Self::Unlimited,
        }
    }
}

/// What requests have in common that are to meet at one target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashOn {
    /// The value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The path.
    Path,
    /// The client's address.
    Client,
}

/// Further tries of requests that may be sent again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retry {
    /// Tries of one request in all.
    pub attempts: u32,
    /// Share of requests that may be further tries, 0 to 1.
    pub budget: f64,
    /// Further tries per second that the budget allows in any case.
    pub floor_per_s: f64,
    /// Answers that count as failed.
    pub statuses: Vec<u16>,
    /// The first pause is up to this long, each one after it up to twice the last.
    pub backoff_ms: u64,
    /// No pause is longer.
    pub backoff_max_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            budget: 0.2,
            floor_per_s: 10.0,
            statuses: vec![502, 503, 504],
            backoff_ms: 25,
            backoff_max_ms: 250,
        }
    }
}

/// A second try beside the first, when that takes long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hedge {
    /// How long the first try has; `None`: measured, the larger of p99 and twice p50.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// Share of requests that may be such tries, 0 to 1.
    #[serde(default = "hedge_budget")]
    pub budget: f64,
}

/// Requests with this cookie go on to the target that they had first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
}

/// Copies of requests to another service, whose answers nobody sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// A key of the table's services.
    pub service: String,
    /// Of each hundred requests so many.
    pub percent: f64,
}

/// A revision's share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// As in [`super::table::Target`].
    pub revision: String,
    /// Of each hundred requests so many; what is left goes to the revisions that are not named.
    pub weight: f64,
    /// Requests with this header go to the revision in any case.
    #[serde(default)]
    pub header: Option<HeaderMatch>,
}

/// Requests that have a header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderMatch {
    /// Its name.
    pub name: String,
    /// Its value; `None`: any.
    #[serde(default)]
    pub value: Option<String>,
}

impl Retry {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.attempts == 0 {
            return Err("retry.attempts is 0; 1 or more would be right".into());
        }
        share("retry.budget", self.budget)?;
        if !self.floor_per_s.is_finite() || self.floor_per_s < 0.0 {
            return Err(format!("retry.floor_per_s is {}; 0 or more would be right", self.floor_per_s));
        }
        if let Some(status) = self.statuses.iter().find(|status| !(400..600).contains(*status)) {
            return Err(format!("retry.statuses has {status}; 400 to 599 would be right"));
        }
        if self.backoff_max_ms < self.backoff_ms {
            return Err(format!(
                "retry.backoff_max_ms is {}; at least backoff_ms, which is {}, would be right",
                self.backoff_max_ms, self.backoff_ms
            ));
        }
        Ok(())
    }
}

impl Hedge {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.after_ms == Some(0) {
            return Err("hedge.after_ms is 0; 1 or more, or null to measure it, would be right".into());
        }
        share("hedge.budget", self.budget)
    }
}

impl HashOn {
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Header(name) => token("hash_on.header", name),
            Self::Cookie(name) => token("hash_on.cookie", name),
            Self::Path | Self::Client => Ok(()),
        }
    }
}

impl Sticky {
    pub(super) fn check(&self) -> Result<(), String> {
        token("sticky.cookie", &self.cookie)
    }
}

impl Mirror {
    pub(super) fn check(&self) -> Result<(), String> {
        hundredth("mirror.percent", self.percent)
    }
}

impl Share {
    /// Checks all shares of one service together.
    pub(super) fn check(split: &[Self]) -> Result<(), String> {
        let mut sum = 0.0;
        for (index, one) in split.iter().enumerate() {
            hundredth("split.weight", one.weight)?;
            sum += one.weight;
            if split[..index].iter().any(|other| other.revision == one.revision) {
                return Err(format!("split names the revision {:?} twice; once would be right", one.revision));
            }
            if let Some(header) = &one.header {
                token("split.header.name", &header.name)?;
            }
        }
        if sum > 100.0 {
            return Err(format!("the weights of split are {sum} together; at most 100 would be right"));
        }
        Ok(())
    }
}

fn share(field: &str, value: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(format!("{field} is {value}; 0 to 1 would be right")) }
}

fn hundredth(field: &str, value: f64) -> Result<(), String> {
    if (0.0..=100.0).contains(&value) { Ok(()) } else { Err(format!("{field} is {value}; 0 to 100 would be right")) }
}

/// Names of headers and of cookies are tokens (RFC 9110 section 5.6.2).
fn token(field: &str, name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(format!("{field} is {name:?}; a name of letters, digits, - and _ would be right"))
    }
}

fn hedge_budget() -> f64 {
    0.02
}

impl Serialize for Concurrency {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Limit(limit) => to.serialize_u32(*limit),
            Self::Auto => to.serialize_str("auto"),
        }
    }
}

impl<'de> Deserialize<'de> for Concurrency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reads;

        impl Visitor<'_> for Reads {
            type Value = Concurrency;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a number of requests from 1 to 4294967295, or \"auto\"")
            }

            fn visit_u64<E: Error>(self, limit: u64) -> Result<Self::Value, E> {
                match u32::try_from(limit) {
                    Ok(limit) if limit > 0 => Ok(Concurrency::Limit(limit)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Unsigned(limit), &self)),
                }
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Self::Value, E> {
                if word == "auto" {
                    Ok(Concurrency::Auto)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(word), &self))
                }
            }
        }

        from.deserialize_any(Reads)
    }
}

impl<'de> Deserialize<'de> for Retry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// The fields as they come, so that one that is left out is as in `Retry::default()`.
        #[derive(Deserialize)]
        #[serde(default)]
        struct Written {
            attempts: u32,
            budget: f64,
            floor_per_s: f64,
            statuses: Vec<u16>,
            backoff_ms: u64,
            backoff_max_ms: u64,
        }

        impl Default for Written {
            fn default() -> Self {
                let Retry { attempts, budget, floor_per_s, statuses, backoff_ms, backoff_max_ms } = Retry::default();
                Self { attempts, budget, floor_per_s, statuses, backoff_ms, backoff_max_ms }
            }
        }

        struct Reads;

        impl<'de> Visitor<'de> for Reads {
            type Value = Retry;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a mapping with attempts, budget and the like, or a number of tries")
            }

            /// `attempts`, as tables before had it: a gateway that is replaced reads what the old one kept.
            fn visit_u64<E: Error>(self, attempts: u64) -> Result<Self::Value, E> {
                let attempts = u32::try_from(attempts)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(attempts), &self))?;
                Ok(Retry { attempts, ..Retry::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Written { attempts, budget, floor_per_s, statuses, backoff_ms, backoff_max_ms } =
                    Written::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Retry { attempts, budget, floor_per_s, statuses, backoff_ms, backoff_max_ms })
            }
        }

        from.deserialize_any(Reads)
    }
}
