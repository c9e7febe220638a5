//! What load is to be put on.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

/// What is asked, how often, for how long.
#[derive(Debug)]
pub struct Plan {
    /// Where, in full: `http://127.0.0.1:8080/orders`.
    pub url: Uri,
    /// How.
    pub method: Method,
    /// Sent with each request; Host is among them.
    pub headers: HeaderMap,
    /// Sent with each request.
    pub body: Bytes,
    /// At once, at most.
    pub connections: usize,
    /// Requests per second, in a Poisson process; `None`: as many as are answered.
    pub rate: Option<f64>,
    /// `None`: until stopped.
    pub duration: Option<Duration>,
    /// From the moment a request goes out to the end of its answer.
    pub timeout: Duration,
    /// Keep each failure with its time.
    pub series: bool,
    /// Keep each request with its time, latency and status.
    pub samples: bool,
    /// Of the arrivals of an open loop.
    pub seed: u64,
}

impl Plan {
    /// Checks what a user gave.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn try_new(
        url: &str,
        method: &str,
        headers: &[(String, String)],
        body: Vec<u8>,
        connections: usize,
        rate: Option<f64>,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL; http://HOST:PORT/PATH would be right"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
        let authority = authority.ok_or_else(|| format!("{url:?}: http://HOST:PORT/PATH would be right"))?;
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no method; GET would be one"))?;
        let mut map = HeaderMap::new();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| format!("{url:?}: {error}"))?;
        map.insert(header::HOST, host);
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
            let value = HeaderValue::from_str(value).map_err(|_| format!("{value:?} is no header value"))?;
            map.insert(name, value);
        }
        if connections == 0 {
            return Err("connections is 0; 1 or more would be right".into());
        }
        if rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err("the rate is not above 0".into());
        }
        Ok(Self {
            method,
            headers: map,
            body: body.into(),
            connections,
            rate,
            duration: None,
            timeout: Duration::from_secs(30),
            series: false,
            samples: false,
            seed: 1,
            url: uri,
        })
    }

    /// The address that the URL leads to.
    ///
    /// # Errors
    /// In words: it leads nowhere.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        let host = self.url.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_u16().unwrap_or(80);
        let found = (bare, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        found.ok_or_else(|| format!("{host} has no address"))
    }
}
