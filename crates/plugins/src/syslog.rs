//! `syslog`: sends log entries to a syslog server over TCP, TLS or UDP, each as a message of RFC 5424.
//!
//! Over TCP every message ends with a line break (RFC 6587, section 3.4.2); entries have none inside.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::kind::{self, Built, Category, Kind, Phase, Phases, Site};
use crate::logging::{self, BatchConfig, EntryConfig, Logger, Way};
use crate::outbound::{Address, Destination};
use crate::schema;
use crate::shipping::Parcel;

pub(crate) const KIND: Kind = Kind {
    name: "syslog",
    priority: 401,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || logging::batch_schema(schema::of::<Config>(), "sys logger"),
    metadata: Some(schema::of::<logging::Metadata>),
    credential: None,
    build,
};

/// Facility "system daemons" and severity "informational", in one number.
const PRIORITY: u8 = 3 * 8 + 6;

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Name or address of the server.
    host: String,
    /// Its port.
    #[schema(value_type = i64)]
    port: u16,
    /// How it is talked to.
    #[serde(default)]
    #[schema(required = false, default = "tcp")]
    sock_type: Socket,
    /// Whether that is over TLS.
    #[serde(default)]
    #[schema(required = false, default = false)]
    tls: bool,
    /// Milliseconds that connecting and writing may take.
    #[serde(default = "timeout")]
    #[schema(required = false, minimum = 1, default = 3000)]
    timeout: u64,
    /// Kept for compatibility: batches say when entries are sent.
    #[serde(default)]
    #[schema(required = false, value_type = u64, minimum = 1, default = 4096)]
    #[allow(dead_code, reason = "batches say when entries are sent")]
    flush_limit: Option<u64>,
    /// Kept for compatibility: the metadata says how many entries may wait.
    #[serde(default)]
    #[schema(required = false, value_type = i64, default = 1_048_576)]
    #[allow(dead_code, reason = "the metadata says how many entries may wait")]
    drop_limit: Option<i64>,
    /// Kept for compatibility: a batch has a connection of its own.
    #[serde(default)]
    #[schema(required = false, value_type = u64, minimum = 5, default = 5)]
    #[allow(dead_code, reason = "a batch has a connection of its own")]
    pool_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Socket {
    #[default]
    Tcp,
    Udp,
}

const fn timeout() -> u64 {
    3000
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let batch: BatchConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    let to = Address { host: config.host, port: config.port };
    let destination = match config.sock_type {
        Socket::Udp => Destination::Datagram(to),
        Socket::Tcp => Destination::Stream {
            to,
            tls: config.tls,
            server_name: None,
            timeout: Duration::from_millis(config.timeout),
        },
    };
    let datagrams = config.sock_type == Socket::Udp;
    let packing = Box::new(move |entries: &[Bytes]| {
        let messages = entries.iter().map(|entry| message(entry));
        match datagrams {
            true => messages.map(|text| Parcel::Bytes(destination.clone(), text.into())).collect(),
            false => {
                let lines = messages.flat_map(|text| text.into_iter().chain([b'\n']));
                vec![Parcel::Bytes(destination.clone(), lines.collect::<Vec<u8>>().into())]
            }
        }
    });
    let way = Way { plugin: KIND.name, batch: Some(batch), packing };
    Ok(Logger::build(&entry, site, way)?.plugin())
}

/// An entry as a message. Time and host are in the entry, and `-` is the header's word for what it leaves out: it may
/// be written long after the request.
fn message(entry: &[u8]) -> Vec<u8> {
    [format!("<{PRIORITY}>1 - - gatewright - - - ").as_bytes(), entry].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Trial;

    #[test]
    fn every_entry_is_a_message() {
        let message = |uri: &str| {
            format!(
                "<30>1 - - gatewright - - - {{\"u\":\"{uri}\",\"route_id\":\"r1\",\"service_id\":\"s1\"}}"
            )
        };
        for (kind, expected) in [
            ("tcp", vec![format!("{}\n{}\n", message("/a"), message("/b"))]),
            ("udp", vec![message("/a"), message("/b")]),
        ] {
            let config = json!({"host": "logs.example", "port": 514, "sock_type": kind, "batch_max_size": 2,
                "log_format": {"u": "$uri"}});
            let trial = Trial::of("syslog", config);
            ["GET /a", "GET /b"].iter().for_each(|request| drop(trial.run(request).respond("200")));
            let texts: Vec<String> = trial.delivered().into_iter().map(|(_, text)| text).collect();
            assert_eq!(texts, expected, "{kind}");
        }
    }
}
