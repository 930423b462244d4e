//! Buffers for requests in flight, lent to a connection while it works and given back while it is idle, so that
//! an idle connection costs almost nothing.

use std::cell::RefCell;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gatewright_model::message::{RequestHead, ResponseHead};

/// Sets kept for reuse per worker; more are freed.
const SPARE_MAX: usize = 256;

/// Bytes of a buffer that is worth keeping; a larger one served a large body and is freed.
const KEEP_BYTES_MAX: usize = 128 * 1024;

/// How far into its page a large read begins.
///
/// Allocations of this size begin with a page. What is read is copied again, behind a few bytes that frame it: the
/// header of a TLS record, the size of a chunk. Processors exist that copy fifteen times slower when the target lies
/// 1 to 15 bytes further into its page than the source (`rep movsb` of AMD's Zen: 3.4 instead of 51 GB/s).
pub(crate) const PAGE_STEP: usize = 64;

/// Empties `buffer` and makes room in it for a read of so many bytes.
pub(crate) fn make_room(buffer: &mut BytesMut, bytes: usize) {
    buffer.clear();
    buffer.reserve(PAGE_STEP + bytes);
    buffer.put_bytes(0, PAGE_STEP);
    buffer.advance(PAGE_STEP);
}

/// Everything one request needs to be read and written.
#[derive(Default)]
pub(crate) struct Workspace {
    /// Bytes from the client.
    pub(crate) inbound: BytesMut,
    /// Bytes from the upstream.
    pub(crate) answer: BytesMut,
    /// Bytes to the upstream.
    pub(crate) outbound: Vec<u8>,
    /// Bytes to the client.
    pub(crate) reply: Vec<u8>,
    pub(crate) request: RequestHead,
    pub(crate) response: ResponseHead,
    /// The body of an answer that a plugin gave; its head is `response`.
    pub(crate) composed: Bytes,
    /// Bytes of `inbound` that were looked at as the body of the request.
    pub(crate) body_bytes: usize,
}

/// The spare workspaces of one worker.
#[allow(clippy::vec_box, reason = "a workspace is lent out; moving the pointer is cheaper than moving it")]
#[derive(Default)]
pub(crate) struct Buffers(RefCell<Vec<Box<Workspace>>>);

impl Buffers {
    pub(crate) fn take(&self) -> Box<Workspace> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut workspace: Box<Workspace>) {
        let size = workspace.inbound.capacity()
            + workspace.answer.capacity()
            + workspace.outbound.capacity()
            + workspace.reply.capacity();
        let mut spare = self.0.borrow_mut();
        if spare.len() < SPARE_MAX && size <= KEEP_BYTES_MAX {
            workspace.inbound.clear();
            workspace.answer.clear();
            workspace.outbound.clear();
            workspace.reply.clear();
            spare.push(workspace);
        }
    }
}
