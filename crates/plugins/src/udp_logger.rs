//! `udp-logger`: sends log entries to a UDP server, in batches.
//!
//! A batch that is longer than a datagram goes out in several; an entry that is longer alone is lost, so do not use it
//! with bodies. Nobody acknowledges a datagram: use another logger for what must arrive.

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
    name: "udp-logger",
    priority: 400,
    category: Category::Other,
    phases: Phases::of(&[Phase::Access, Phase::Response, Phase::Log]),
    schema: || logging::batch_schema(schema::of::<Config>(), "udp logger"),
    metadata: Some(schema::of::<logging::Metadata>),
    credential: None,
    build,
};

/// Bytes of a datagram; a little more would fit through IP, but not with every header it may have.
const DATAGRAM_BYTES_MAX: usize = 64_000;

#[derive(Deserialize, ToSchema)]
struct Config {
    /// Name or address of the server.
    host: String,
    /// Its port.
    #[schema(value_type = u64, minimum = 0)]
    port: u16,
    /// Kept for compatibility: sending a datagram waits for nobody.
    #[serde(default = "timeout")]
    #[schema(required = false, minimum = 1, default = 3)]
    #[allow(dead_code, reason = "sending a datagram waits for nobody")]
    timeout: u64,
}

const fn timeout() -> u64 {
    3
}

fn build(document: Value, site: &Site<'_>) -> Built {
    let entry: EntryConfig = kind::parse(document.clone())?;
    let batch: BatchConfig = kind::parse(document.clone())?;
    let config: Config = kind::parse(document)?;
    let to = Destination::Datagram(Address { host: config.host, port: config.port });
    let single = batch.batch_max_size == 1;
    let packing = Box::new(move |entries: &[Bytes]| {
        let parcel = |entries: &[Bytes]| match entries {
            [entry] if single => Parcel::Bytes(to.clone(), entry.clone()),
            _ => Parcel::Bytes(to.clone(), shipping::json_array(entries).into()),
        };
        datagrams(entries).map(parcel).collect()
    });
    let way = Way { plugin: KIND.name, batch: Some(batch), packing };
    Ok(Logger::build(&entry, site, way)?.plugin())
}

/// As many entries as fit into a datagram, one after the other.
fn datagrams(entries: &[Bytes]) -> impl Iterator<Item = &[Bytes]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 2;
        let fits = |entry: &Bytes| {
            bytes += entry.len() + 1;
            bytes <= DATAGRAM_BYTES_MAX
        };
        let count = rest.iter().map(fits).take_while(|fits| *fits).count().max(1).min(rest.len());
        let (some, others) = rest.split_at(count);
        rest = others;
        (!some.is_empty()).then_some(some)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Trial;

    #[test]
    fn a_batch_goes_out_in_datagrams_that_it_fits_into() {
        let sizes = |lengths: &[usize]| -> Vec<usize> {
            let entries: Vec<Bytes> = lengths.iter().map(|length| vec![b'x'; *length].into()).collect();
            datagrams(&entries).map(<[Bytes]>::len).collect()
        };
        assert_eq!(sizes(&[1, 2, 3]), [3]);
        assert_eq!(sizes(&[30_000, 30_000, 30_000]), [2, 1]);
        assert_eq!(sizes(&[1, 70_000, 1]), [1, 1, 1]);
        assert_eq!(sizes(&[]), [0; 0]);
    }

    #[test]
    fn entries_are_sent_to_the_server() {
        let config =
            json!({"host": "127.0.0.1", "port": 514, "batch_max_size": 1, "log_format": {"u": "$uri"}});
        let trial = Trial::of("udp-logger", config);
        trial.run("GET /a").respond("200");
        let expected = Destination::Datagram(Address { host: "127.0.0.1".to_owned(), port: 514 });
        let text = r#"{"u":"/a","route_id":"r1","service_id":"s1"}"#.to_owned();
        assert_eq!(trial.delivered(), [(expected, text)]);
    }
}
