//! A line of a watch: as it is, and packed for the network.
//!
//! Each line is packed on its own, as one frame of zstd; a stream of frames is a stream of zstd again. So it is packed
//! once, however many gateways it goes to, and a watch needs no memory for what it said before.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use gatewright_model::protocol::{ENCODING, Message};
use tokio::sync::OnceCell;

/// The level of zstd: the fastest is already six times as fast as gzip, and packs configurations better.
const LEVEL: i32 = 1;

/// Bytes from which on packing is no work for a thread that others wait for.
const LARGE_BYTES: usize = 64 << 10;

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Packed,
}

impl Encoding {
    /// What a gateway that accepts these encodings is sent.
    pub(super) fn accepted(accept_encoding: Option<&str>) -> Self {
        let mut named = accept_encoding.unwrap_or_default().split(',').map(str::trim);
        if named.any(|name| name == ENCODING) { Self::Packed } else { Self::Plain }
    }
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// That the connection lives, or that the control plane is behind.
    Nothing,
    /// What changed.
    Changes,
    Everything,
}

/// One message, written down.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<Written>);

#[derive(Debug)]
struct Written {
    says: Says,
    plain: Bytes,
    packed: OnceCell<Bytes>,
}

impl Line {
    /// Writes a message down.
    pub(super) fn of(message: &Message) -> serde_json::Result<Self> {
        let mut plain = serde_json::to_vec(message)?;
        plain.push(b'\n');
        let says = match message {
            Message::Update(update) if update.full => Says::Everything,
            Message::Update(_) => Says::Changes,
            Message::Ping | Message::Behind { .. } | Message::Prepare { .. } => Says::Nothing,
        };
        Ok(Self(Arc::new(Written { says, plain: plain.into(), packed: OnceCell::new() })))
    }

    pub(super) fn says(&self) -> Says {
        self.0.says
    }

    pub(super) fn plain(&self) -> &Bytes {
        &self.0.plain
    }

    /// What travels.
    pub(super) async fn encoded(&self, encoding: Encoding) -> io::Result<Bytes> {
        match encoding {
            Encoding::Plain => Ok(self.0.plain.clone()),
            Encoding::Packed => self.0.packed.get_or_try_init(|| pack(self.0.plain.clone())).await.cloned(),
        }
    }
}

async fn pack(plain: Bytes) -> io::Result<Bytes> {
    let is_large = plain.len() >= LARGE_BYTES;
    let packing = move || zstd::bulk::compress(&plain, LEVEL).map(Bytes::from);
    if !is_large {
        return packing();
    }
    tokio::task::spawn_blocking(packing).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_that_are_packed_one_by_one_are_one_stream() {
        let ping = Line::of(&Message::Ping).unwrap();
        let behind = Line::of(&Message::Behind { revision: Default::default() }).unwrap();
        let mut stream = Vec::new();
        for line in [&ping, &behind, &ping] {
            stream.extend_from_slice(&line.encoded(Encoding::Packed).await.unwrap());
        }
        let unpacked = zstd::stream::decode_all(&stream[..]).unwrap();
        assert_eq!(unpacked, b"\"ping\"\n{\"behind\":{\"revision\":0}}\n\"ping\"\n");
    }

    #[tokio::test]
    async fn a_line_is_packed_once() {
        let line = Line::of(&Message::Ping).unwrap();
        let first = line.encoded(Encoding::Packed).await.unwrap();
        assert_eq!(line.clone().encoded(Encoding::Packed).await.unwrap().as_ptr(), first.as_ptr());
        assert_eq!(line.encoded(Encoding::Plain).await.unwrap(), *line.plain());
    }

    #[test]
    fn what_a_gateway_accepts_decides() {
        for (accepted, expected) in [
            (None, Encoding::Plain),
            (Some("gzip"), Encoding::Plain),
            (Some("zstd"), Encoding::Packed),
            (Some("gzip, zstd"), Encoding::Packed),
        ] {
            assert_eq!(Encoding::accepted(accepted), expected, "{accepted:?}");
        }
    }
}
