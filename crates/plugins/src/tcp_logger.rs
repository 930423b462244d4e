//! `tcp-logger`: writes log entries to a TCP server, in batches, over TLS where that is asked for.
//!
//! A batch has a connection of its own: one that was kept could be dead without anybody noticing, and would swallow
//! the next batch.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::kind::{self, Built, Category, Kind, Phase, Phases, Site};
use crate::logging::{self, BatchConfig, EntryConfig, Logger, Way};
use crate::outbound::{Address, Destination};
use crate::schema;
use crate::shipping::{self, Parcel};

pub(crate) const KIND: Kind = Kind {
    name: "tcp-logger",
    priority: 405,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || logging::batch_schema(schema::of::<Config>(), "tcp logger"),
    metadata: Some(schema::of::<logging::Metadata>),
    credential: None,
    build,
};

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Name or address of the server.
    host: String,
    /// Its port.
    #[schema(value_type = u64, minimum = 0)]
    port: u16,
    /// Whether it is talked to over TLS.
    #[serde(default)]
    #[schema(required = false, default = false)]
    tls: bool,
    /// The name its certificate has to be for, where that is not `host`.
    #[serde(default)]
    tls_options: Option<String>,
    /// Milliseconds that connecting and writing may take.
    #[serde(default = "timeout")]
    #[schema(required = false, minimum = 1, default = 1000)]
    timeout: u64,
}

const fn timeout() -> u64 {
    1000
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let batch: BatchConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    let to = Destination::Stream {
        to: Address { host: config.host, port: config.port },
        tls: config.tls,
        server_name: config.tls_options,
        timeout: Duration::from_millis(config.timeout),
    };
    let single = batch.batch_max_size == 1;
    let packing = Box::new(move |entries: &[Bytes]| {
        let text = match entries {
            [entry] if single => entry.clone(),
            _ => shipping::json_array(entries).into(),
        };
        vec![Parcel::Bytes(to.clone(), text)]
    });
    let way = Way { plugin: KIND.name, batch: Some(batch), packing };
    Ok(Logger::build(&entry, site, way)?.plugin())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Trial, refused};

    #[test]
    fn a_batch_is_one_text() {
        let entry = r#"{"host":"api.example","route_id":"r1","service_id":"s1"}"#;
        let several = format!("[{entry},{entry}]");
        for (size, expected) in [(1, vec![entry, entry]), (2, vec![several.as_str()])] {
            let config = json!({"host": "logs.example", "port": 601, "tls": true, "batch_max_size": size,
                "log_format": {"host": "$host"}});
            let trial = Trial::of("tcp-logger", config);
            (0..2).for_each(|_| drop(trial.run("GET /").respond("200")));
            let delivered = trial.delivered();
            let texts: Vec<&str> = delivered.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(texts, expected);
            let to = Destination::Stream {
                to: Address { host: "logs.example".to_owned(), port: 601 },
                tls: true,
                server_name: None,
                timeout: Duration::from_secs(1),
            };
            assert_eq!(delivered[0].0, to);
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused() {
        assert_eq!(refused("tcp-logger", &json!({"host": "a", "port": -1})), ["/port"]);
        assert_eq!(refused("tcp-logger", &json!({"port": 1})), ["/host"]);
        assert_eq!(refused("tcp-logger", &json!({"host": "a", "port": 70_000})), [""]);
    }
}
