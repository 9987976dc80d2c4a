//! `FrameReader`: reads a client's bytes as WebSocket frames. It checks a frame by its header, before it buffers the
//! payload.
//!
//! Invariants:
//! - A frame over its limit is refused from its header, whatever length it claims; so is a message of several frames, from
//!   the header that takes it over the limit.
//! - More bytes are taken from the connection only when the next frame is not here yet. One chunk of the connection's and
//!   one message of at most [`MAX_BATCH_BYTES`] are kept, however fast a client sends and however slow the session is.
//! - Every frame comes out as one item, so that the session can count it: the parts of a message and control frames too.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_http::error::PayloadError;
use actix_http::ws::{CloseReason, Parser};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use super::frame_header::{FrameHeader, MAX_CONTROL_BYTES, Opcode};
use crate::protocol::MAX_BATCH_BYTES;

/// One frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A complete text message: one frame, or assembled with this last frame. It is not yet checked to be UTF-8.
    Text(Bytes),
    /// A part of a text message that continues.
    Part,
    /// A ping, with the payload of its pong.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The client's close frame.
    Close(Option<CloseReason>),
    /// A frame that ends the session. No frame follows it.
    Refused(Refusal),
}

/// Why a frame ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The frame, or its message with it, is over the limit.
    TooBig,
    /// The frame is binary.
    Binary,
    /// The frame violates RFC 6455.
    Malformed,
}

/// Reads frames from a stream of bytes.
pub struct FrameReader<S> {
    bytes: S,
    /// The received bytes that are not parsed yet.
    buffer: BytesMut,
    /// The parts of a message so far.
    message: Option<BytesMut>,
    is_over: bool,
}

impl<S> FrameReader<S> {
    /// Reads from `bytes`.
    pub fn new(bytes: S) -> Self {
        Self { bytes, buffer: BytesMut::new(), message: None, is_over: false }
    }

    /// Removes the next frame from the buffer. `None` while it is incomplete.
    fn next_frame(&mut self) -> Result<Option<Received>, Refusal> {
        let Some(header) = FrameHeader::parse(&self.buffer).map_err(|_| Refusal::Malformed)? else { return Ok(None) };
        self.judge(&header)?;
        // Checked above: the payload is within the limit.
        if self.buffer.len() < header.header_bytes + header.payload_bytes as usize {
            return Ok(None);
        }
        let parsed = Parser::parse(&mut self.buffer, true, MAX_BATCH_BYTES).map_err(|_| Refusal::Malformed)?;
        let Some((_, _, payload)) = parsed else { return Ok(None) };
        self.take(header, payload.unwrap_or_default()).map(Some)
    }

    /// Checks a frame by its header alone.
    fn judge(&self, header: &FrameHeader) -> Result<(), Refusal> {
        if header.opcode == Opcode::Binary {
            return Err(Refusal::Binary);
        }
        let before = match header.opcode {
            Opcode::Continuation => self.message.as_ref().map_or(0, BytesMut::len),
            _ => 0,
        };
        let limit = if header.is_control() { MAX_CONTROL_BYTES } else { (MAX_BATCH_BYTES - before) as u64 };
        if header.payload_bytes > limit {
            return Err(Refusal::TooBig);
        }
        let is_in_place = match header.opcode {
            Opcode::Continuation => self.message.is_some(),
            Opcode::Text => self.message.is_none(),
            _ => header.is_final,
        };
        if is_in_place { Ok(()) } else { Err(Refusal::Malformed) }
    }

    fn take(&mut self, header: FrameHeader, payload: BytesMut) -> Result<Received, Refusal> {
        Ok(match header.opcode {
            Opcode::Ping => Received::Ping(payload.freeze()),
            Opcode::Pong => Received::Pong(payload.freeze()),
            Opcode::Close if payload.is_empty() => Received::Close(None),
            Opcode::Close => {
                Received::Close(Parser::try_parse_close_payload(&payload).map_err(|_| Refusal::Malformed)?)
            }
            Opcode::Binary => return Err(Refusal::Binary),
            Opcode::Text | Opcode::Continuation => {
                let message = match self.message.take() {
                    // The payload is a slice of the buffer. Without a copy it would keep the whole buffer alive.
                    None if !header.is_final => BytesMut::from(&payload[..]),
                    None => payload,
                    Some(mut so_far) => {
                        so_far.extend_from_slice(&payload);
                        so_far
                    }
                };
                if header.is_final {
                    Received::Text(message.freeze())
                } else {
                    self.message = Some(message);
                    Received::Part
                }
            }
        })
    }

    fn keep(&mut self, chunk: &[u8]) {
        if self.buffer.is_empty() {
            // A buffer that once held a batch would otherwise keep its capacity for the life of the session.
            self.buffer = BytesMut::from(chunk);
        } else {
            self.buffer.extend_from_slice(chunk);
        }
    }
}

impl<S> Stream for FrameReader<S>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + Unpin,
{
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let this = self.get_mut();
        while !this.is_over {
            match this.next_frame() {
                Ok(None) => {}
                Ok(received) => return Poll::Ready(received),
                Err(refusal) => {
                    this.is_over = true;
                    (this.buffer, this.message) = (BytesMut::new(), None);
                    return Poll::Ready(Some(Received::Refused(refusal)));
                }
            }
            match ready!(this.bytes.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => this.keep(&chunk),
                Some(Err(_)) | None => this.is_over = true,
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it, masked with zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = header(first, payload.len() as u64);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn header(first: u8, payload_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload_bytes {
            0..126 => bytes.push(0x80 | payload_bytes as u8),
            126..=0xFFFF => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&payload_bytes.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// The frames that are read from bytes in these chunks.
    fn read(chunks: Vec<Vec<u8>>) -> Vec<Received> {
        let bytes = futures_util::stream::iter(chunks.into_iter().map(|chunk| Ok(Bytes::from(chunk))));
        futures_util::FutureExt::now_or_never(FrameReader::new(bytes).collect()).expect("nothing to wait for")
    }

    fn text(text: &[u8]) -> Received {
        Received::Text(Bytes::copy_from_slice(text))
    }

    #[test]
    fn a_frame_over_its_limit_is_refused_from_its_header() {
        let over = MAX_BATCH_BYTES as u64 + 1;
        for (first, payload_bytes, refusal) in [
            (0x81, over, Refusal::TooBig),
            (0x81, 1 << 30, Refusal::TooBig),
            (0x81, u64::MAX, Refusal::TooBig),
            (0x01, over, Refusal::TooBig),
            (0x80, 1 << 30, Refusal::TooBig),
            (0x82, 1 << 30, Refusal::Binary),
            (0x82, 0, Refusal::Binary),
            (0x02, 5, Refusal::Binary),
            (0x89, 126, Refusal::TooBig),
            (0x8A, 1 << 30, Refusal::TooBig),
            (0x88, 1 << 40, Refusal::TooBig),
        ] {
            let received = read(vec![header(first, payload_bytes)]);
            assert_eq!(received, [Received::Refused(refusal)], "{first:x} {payload_bytes}");
        }
        assert_eq!(read(vec![header(0x81, MAX_BATCH_BYTES as u64)]), [], "the limit itself is waited for");
    }

    #[test]
    fn a_message_of_several_frames_has_the_same_limit_from_the_header_that_goes_over_it() {
        let part = vec![b'x'; 1024];
        let mut frames = vec![frame(0x01, &part)];
        frames.extend((1..MAX_BATCH_BYTES / 1024).map(|_| frame(0x00, &part)));
        let count = frames.len();
        let with = |last: Vec<u8>| read(frames.iter().cloned().chain([last]).collect());
        assert_eq!(with(frame(0x80, b"")).last(), Some(&text(&vec![b'x'; MAX_BATCH_BYTES])));
        assert_eq!(with(header(0x00, 1)).last(), Some(&Received::Refused(Refusal::TooBig)));
        assert_eq!(with(header(0x80, 1)).last(), Some(&Received::Refused(Refusal::TooBig)));
        assert_eq!(with(vec![]), (0..count).map(|_| Received::Part).collect::<Vec<_>>());
    }

    #[test]
    fn parts_are_put_together_around_control_frames_and_each_frame_is_an_item() {
        let bytes =
            [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x00, b""), frame(0x8A, b"q"), frame(0x80, b"bc")].concat();
        let part = || Received::Part;
        let (ping, pong) = (Received::Ping(Bytes::from_static(b"p")), Received::Pong(Bytes::from_static(b"q")));
        assert_eq!(read(vec![bytes]), [part(), ping, part(), pong, text(b"abc")]);
    }

    #[test]
    fn frames_out_of_place_are_malformed_and_nothing_comes_after_them() {
        for first in [0x00, 0x80, 0x09, 0x08, 0x83, 0xC1] {
            let bytes = [frame(first, b"a"), frame(0x81, b"b")].concat();
            assert_eq!(read(vec![bytes]), [Received::Refused(Refusal::Malformed)], "{first:x}");
        }
        let between = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        assert_eq!(read(vec![between]), [Received::Part, Received::Refused(Refusal::Malformed)]);
    }

    /// Counts the chunks that were read from it.
    struct Counted(usize);

    impl Stream for Counted {
        type Item = Result<Bytes, PayloadError>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            self.0 += 1;
            Poll::Ready(Some(Ok(Bytes::from(frame(0x8A, b"").repeat(100)))))
        }
    }

    #[test]
    fn no_more_is_taken_from_the_connection_than_the_next_frame_needs() {
        let mut reader = FrameReader::new(Counted(0));
        for n in 0..1000 {
            let received = futures_util::FutureExt::now_or_never(reader.next());
            assert_eq!(received, Some(Some(Received::Pong(Bytes::new()))));
            assert_eq!(reader.bytes.0, n / 100 + 1);
        }
    }

    proptest! {
        #[test]
        fn it_is_the_same_however_the_bytes_are_cut(cuts in prop::collection::vec(1_usize..40, 0..60)) {
            let bytes = [
                frame(0x81, b"one"), frame(0x01, &[b'x'; 200]), frame(0x89, b"ping"), frame(0x80, &[b'y'; 70]),
                frame(0x81, &vec![b'z'; 70_00]), frame(0x88, &[0x03, 0xE8]), header(0x81, 1 << 40),
            ].concat();
            let (mut rest, mut chunks) = (&bytes[..], Vec::new());
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk.to_vec());
                rest = after;
            }
            chunks.push(rest.to_vec());
            prop_assert_eq!(read(chunks), read(vec![bytes]));
        }

        #[test]
        fn no_bytes_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let _ = read(chunks);
        }
    }
}
