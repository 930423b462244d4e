//! A browser as far as logins need one: it keeps cookies per host and follows redirects.

use std::collections::BTreeMap;

use crate::client;
use crate::message::Response;

/// Redirects that are followed before the browser gives up.
const REDIRECTS_MAX: usize = 20;

/// Somebody's browser.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Browser {
    /// Goes to `url`, and on to where it is sent; hands back where it arrived and what it got there.
    ///
    /// # Panics
    /// If nobody answers, or it is sent around for ever.
    pub fn visit(&mut self, url: &str) -> (String, Response) {
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let answer = self.get(&url);
            let location = answer.head.header("location").map(str::to_owned);
            match location.filter(|_| (300..400).contains(&answer.status())) {
                None => return (url, answer),
                Some(path) if path.starts_with('/') => {
                    let (authority, _) = parts(&url);
                    url = format!("http://{authority}{path}");
                }
                Some(next) => url = next,
            }
        }
        panic!("sent around for ever, last to {url}")
    }

    /// Goes to `url` and no further.
    ///
    /// # Panics
    /// If nobody answers.
    pub fn get(&mut self, url: &str) -> Response {
        let (authority, target) = parts(url);
        // Cookies do not know ports.
        let host = authority.split(':').next().unwrap_or_default();
        let jar = self.cookies.entry(host.to_owned()).or_default();
        let line = jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let headers = [("Cookie", line.as_str())];
        let headers = if line.is_empty() { &headers[..0] } else { &headers[..] };
        let address = authority.parse().unwrap_or_else(|_| panic!("no address in {url}"));
        let answer = client::request(address, "GET", authority, target, headers, b"");
        for set in answer.head.values("set-cookie") {
            let (name, value) =
                set.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            let ends = set.to_ascii_lowercase().contains("max-age=0") || value.is_empty();
            match ends {
                true => jar.remove(name),
                false => jar.insert(name.to_owned(), value.to_owned()),
            };
        }
        answer
    }
}

/// Host with port, and target.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.trim_start_matches("http://");
    let end = rest.find('/').unwrap_or(rest.len());
    let target = if end == rest.len() { "/" } else { &rest[end..] };
    (&rest[..end], target)
}
