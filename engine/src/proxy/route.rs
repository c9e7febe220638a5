//! Which service a request is for: by host and the longest path that matches on segment boundaries. The path is
//! compared as it came: what `..` or `%2f` mean is for the service to say.

use std::sync::Arc;

use super::backend::Backend;
use crate::dispatch::Class;
use crate::table::{Priority, Rule};

/// The rules of one listener, longest path first; of equal paths the one that names a host comes first.
#[derive(Default)]
pub struct Routes {
    rules: Vec<Route>,
}

/// One rule.
pub struct Route {
    /// Lower case, without port; `None`: any.
    pub host: Option<String>,
    /// Without a slash at its end, so "" is the root.
    pub path: String,
    /// Where the request goes.
    pub backend: Arc<Backend>,
    /// How early it is served there.
    pub class: Class,
}

impl Route {
    /// A rule as the table has it.
    pub fn new(rule: &Rule, backend: Arc<Backend>) -> Self {
        let class = match rule.priority {
            Priority::High => Class::High,
            Priority::Normal => Class::Normal,
            Priority::Low => Class::Low,
        };
        let host = rule.host.as_deref().map(str::to_ascii_lowercase);
        Self { host, path: rule.path.trim_end_matches('/').to_owned(), backend, class }
    }

    fn matches(&self, host: &str, path: &str) -> bool {
        self.host.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(host)) && is_under(&self.path, path)
    }
}

impl Routes {
    /// Orders the rules.
    pub fn new(mut rules: Vec<Route>) -> Self {
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.path.len()), rule.host.is_none()));
        Self { rules }
    }

    /// The rule for a host (without port) and a path; `None`: none matches.
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        self.rules.iter().find(|rule| rule.matches(host, path))
    }
}

/// A host without its port: `a:80` is `a`, `[::1]:80` is `[::1]`.
pub fn without_port(host: &str) -> &str {
    // Hosts are short: this costs less than a search made for long texts.
    match host.bytes().rposition(|byte| byte == b':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

fn is_under(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let under =
            ["/orders", "/orders/", "/orders/7", "/ordersx", "/order", "*"].map(|path| is_under("/orders", path));

        assert_eq!(under, [true, true, true, false, false, false]);
        assert!(is_under("", "*") && is_under("", "/"));
    }

    #[test]
    fn a_port_is_cut_off_and_nothing_else() {
        let hosts = ["a", "a:80", "[::1]", "[::1]:80", ""].map(without_port);

        assert_eq!(hosts, ["a", "a", "[::1]", "[::1]", ""]);
    }
}
