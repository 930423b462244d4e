//! What a connection to a client or to a node runs on: TCP, or TLS over TCP.
//!
//! A connection stays on its worker, so its two halves share the TLS session by a [`RefCell`] without locks; a
//! half borrows it for one poll only, never across a wait.
//! The halves count what passes through them, so that nobody who reads or writes has to.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Write};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, tcp};

use crate::worker::buffers::PAGE_STEP;

/// A TLS session over TCP, of either side.
pub(crate) type Tls = tokio_rustls::TlsStream<TcpStream>;

/// An open connection.
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<RefCell<Tls>>),
}

impl Transport {
    pub(crate) fn tls(session: Tls) -> Self {
        Self::Tls(Box::new(RefCell::new(session)))
    }

    /// The two directions, to be used side by side; what passes is counted in `traffic`.
    pub(crate) fn split<'t>(&'t mut self, traffic: &'t Traffic) -> (ReadHalf<'t>, WriteHalf<'t>) {
        let (reader, writer) = match self {
            Self::Plain(stream) => {
                let (reader, writer) = stream.split();
                (Reader::Plain(reader), Writer::Plain(writer))
            }
            Self::Tls(session) => {
                let session = &**session;
                (Reader::Tls(session), Writer::Tls(session))
            }
        };
        (ReadHalf { reader, count: &traffic.read }, WriteHalf { writer, count: &traffic.written })
    }

    /// Whether the other side has said nothing since it was last read. Costs no system call unless something
    /// arrived. A TLS session that holds anything, be it a ticket, has been spoken to: what is no application data
    /// is taken in on the way.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut room = [0];
        let mut room = ReadBuf::new(&mut room);
        let mut context = Context::from_waker(Waker::noop());
        match self {
            Self::Plain(stream) => {
                let nothing = stream.try_read(room.initialize_unfilled());
                matches!(nothing, Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Self::Tls(session) => Pin::new(session.get_mut()).poll_read(&mut context, &mut room).is_pending(),
        }
    }
}

/// Bytes that passed a connection; of a TLS session, those inside it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) read: Cell<u64>,
    pub(crate) written: Cell<u64>,
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, room),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_read(context, room),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Self::Tls(session) => poll_write_tls(session.get_mut(), context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(session) => Pin::new(session.get_mut()).poll_shutdown(context),
        }
    }
}

/// The direction from the other side.
pub(crate) struct ReadHalf<'t> {
    reader: Reader<'t>,
    count: &'t Cell<u64>,
}

enum Reader<'t> {
    Plain(tcp::ReadHalf<'t>),
    Tls(&'t RefCell<Tls>),
}

/// The direction to the other side.
pub(crate) struct WriteHalf<'t> {
    writer: Writer<'t>,
    count: &'t Cell<u64>,
}

enum Writer<'t> {
    Plain(tcp::WriteHalf<'t>),
    Tls(&'t RefCell<Tls>),
}

fn count(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get() + bytes as u64);
}

impl ReadHalf<'_> {
    /// Waits until there may be something to read, holding no buffer meanwhile.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.reader {
            Reader::Plain(reader) => reader.readable().await,
            Reader::Tls(session) => {
                poll_fn(|context| {
                    let session = session.borrow();
                    let (stream, state) = session.get_ref();
                    // A session that does not want to read holds what it has decrypted already.
                    if state.wants_read() { stream.poll_read_ready(context) } else { Poll::Ready(Ok(())) }
                })
                .await
            }
        }
    }

    /// Reads what is there without waiting; [`ErrorKind::WouldBlock`]: nothing is.
    ///
    /// A read that did not fill its room is remembered as having taken everything, so that the next
    /// [`ReadHalf::readable`] waits for the system to say something new, together with everything said before it.
    pub(crate) fn try_read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(self.read_buf(buffer)).poll(&mut context) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until the other side has reset the connection: nobody is there any more. That nothing more is sent is
    /// no such sign, its sender may still read. Never ends by itself.
    pub(crate) async fn reset(&self) {
        match &self.reader {
            Reader::Plain(reader) => {
                // An error of the wait itself is no worse than not knowing.
                if reader.ready(Interest::ERROR).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Reader::Tls(session) => {
                poll_fn(|context| {
                    let session = session.borrow();
                    let stream = session.get_ref().0;
                    // A session borrowed across a wait could not be written to meanwhile, hence this detour. After
                    // the other side said anything more, a reset shows only when it is written to.
                    match stream.poll_read_ready(context) {
                        Poll::Ready(_) if matches!(stream.take_error(), Ok(None)) => Poll::Pending,
                        readiness => readiness.map(|_| ()),
                    }
                })
                .await;
            }
        }
    }
}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = room.filled().len();
        let polled = match &mut this.reader {
            Reader::Plain(reader) => Pin::new(reader).poll_read(context, room),
            Reader::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_read(context, room),
        };
        count(this.count, room.filled().len() - before);
        polled
    }
}

impl WriteHalf<'_> {
    /// Whether what was written may wait here until it is flushed.
    pub(crate) fn holds_back(&self) -> bool {
        matches!(self.writer, Writer::Tls(_))
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = match &mut this.writer {
            Writer::Plain(writer) => Pin::new(writer).poll_write(context, data),
            Writer::Tls(session) => poll_write_tls(&mut session.borrow_mut(), context, data),
        };
        polled.map_ok(|bytes| {
            count(this.count, bytes);
            bytes
        })
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().writer {
            Writer::Plain(writer) => Pin::new(writer).poll_flush(context),
            Writer::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().writer {
            Writer::Plain(writer) => Pin::new(writer).poll_shutdown(context),
            Writer::Tls(session) => Pin::new(&mut *session.borrow_mut()).poll_shutdown(context),
        }
    }
}

/// Bytes of a page of memory; with larger pages more is taken to be at the start of one, which costs little.
const PAGE_BYTES: usize = 4096;

/// Bytes from which on it matters where in its page something is copied from.
const LARGE_COPY_BYTES: usize = 4096;

/// Bytes before the data of a record (RFC 8446 section 5.2), which is built at the start of a page when it is large.
const RECORD_HEADER_BYTES: usize = 5;

/// Writes `data` into a session and sends it. Large data at the start of a page begins with a small record, sent
/// together with the next, so that what is copied into that one is not slow to copy (see [`PAGE_STEP`]).
fn poll_write_tls(session: &mut Tls, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
    let aligned = data.as_ptr().addr() % PAGE_BYTES <= RECORD_HEADER_BYTES;
    if data.len() < LARGE_COPY_BYTES || !aligned {
        return Pin::new(session).poll_write(context, data);
    }
    let first = &data[..PAGE_STEP];
    let taken = match session {
        Tls::Client(session) => session.get_mut().1.writer().write(first)?,
        Tls::Server(session) => session.get_mut().1.writer().write(first)?,
    };
    match Pin::new(session).poll_write(context, &data[taken..]) {
        Poll::Pending if taken > 0 => Poll::Ready(Ok(taken)),
        written => written.map_ok(|bytes| bytes + taken),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// Both ends of a session, the client's first. The server has sent its tickets, which nobody has read.
    async fn session() -> (Transport, Transport) {
        let (certificate, key) = crate::tls::testing::pair("a.example");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut trusted = rustls::RootCertStore::empty();
        trusted.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = Arc::new(server.with_single_cert(vec![certificate], key).unwrap());
        let client = rustls::ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = Arc::new(client.with_root_certificates(trusted).with_no_client_auth());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (client_stream, accepted) = tokio::join!(connecting, listener.accept());
        let name = ServerName::try_from("a.example").unwrap();
        let connector = TlsConnector::from(client);
        let acceptor = TlsAcceptor::from(server);
        let (client, server) = tokio::join!(
            connector.connect(name, client_stream.unwrap()),
            acceptor.accept(accepted.unwrap().0)
        );
        let (client, server) = (client.unwrap(), server.unwrap());
        client.get_ref().0.readable().await.unwrap();
        (Transport::tls(client.into()), Transport::tls(server.into()))
    }

    fn is_ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn tickets_are_taken_in_and_are_nothing_the_other_side_said() {
        let traffic = Traffic::default();
        let (mut client, mut server) = session().await;
        assert!(client.is_silent());
        assert!(client.is_silent(), "nor are they anything later");
        let (_, mut writer) = server.split(&traffic);
        writer.write_all(b"x").await.unwrap();
        writer.flush().await.unwrap();
        client.split(&traffic).0.readable().await.unwrap();
        assert!(!client.is_silent());
    }

    #[tokio::test]
    async fn a_session_that_holds_what_it_decrypted_is_readable_without_the_socket() {
        let traffic = Traffic::default();
        let (mut client, mut server) = session().await;
        let (_, mut writer) = server.split(&traffic);
        writer.write_all(b"hello").await.unwrap();
        writer.flush().await.unwrap();
        let (mut reader, _) = client.split(&traffic);
        let mut first = [0];
        reader.read_exact(&mut first).await.unwrap();
        assert!(is_ready(reader.readable()), "four bytes are left");
        let mut rest = BytesMut::with_capacity(16);
        assert_eq!(reader.try_read_buf(&mut rest).unwrap(), 4);
        assert_eq!(&rest[..], b"ello");
        assert!(!is_ready(reader.readable()));
        assert_eq!(reader.try_read_buf(&mut rest).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn large_data_arrives_whole_wherever_in_its_page_it_begins() {
        let traffic = Traffic::default();
        let (mut client, mut server) = session().await;
        let (mut reader, _) = server.split(&traffic);
        let (_, mut writer) = client.split(&traffic);
        let text: Vec<u8> = (0..300_000_u32).map(|index| index.to_le_bytes()[1]).collect();
        let start = text.as_ptr().align_offset(PAGE_BYTES);
        let from = [start, start + 1, start + RECORD_HEADER_BYTES, start + PAGE_STEP, start + PAGE_BYTES - 1];
        for from in from {
            let sent = &text[from..from + 200_000];
            let mut arrived = vec![0; sent.len()];
            let sending = async { writer.write_all(sent).await.and(writer.flush().await) };
            let (sending, receiving) = tokio::join!(sending, reader.read_exact(&mut arrived));
            sending.unwrap();
            receiving.unwrap();
            assert!(arrived == sent, "from byte {from}");
        }
    }

    #[tokio::test]
    async fn what_is_written_arrives_once_it_is_flushed_and_a_goodbye_ends_reading() {
        let traffic = Traffic::default();
        let (mut client, mut server) = session().await;
        let (mut reader, _) = server.split(&traffic);
        let (_, mut writer) = client.split(&traffic);
        assert!(writer.holds_back());
        writer.write_all(b"over").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"over");
        assert!(is_ready(reader.readable()), "the end is something to read");
        assert!(!server.is_silent());
    }
}
