//! Parses the header of a WebSocket frame (RFC 6455, section 5.2) before any payload is buffered. Pure: bytes in, a
//! header out.

/// The most bytes that a control frame may carry.
pub const MAX_CONTROL_BYTES: u64 = 125;
/// The bytes of a client's masking key.
const MASK_BYTES: usize = 4;

/// The opcode of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next part of a message.
    Continuation,
    /// A text message, or its first part.
    Text,
    /// A binary message, or its first part.
    Binary,
    /// The close of the connection.
    Close,
    /// A ping.
    Ping,
    /// A pong.
    Pong,
}

/// The header of a frame that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The opcode.
    pub opcode: Opcode,
    /// Whether the message ends with this frame.
    pub is_final: bool,
    /// The payload length that the header claims, in bytes. The client may claim any number.
    pub payload_bytes: u64,
    /// The length of the header, in bytes, with the masking key.
    pub header_bytes: usize,
}

/// The bytes are not the header of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the header of a client's frame")]
pub struct Malformed;

impl FrameHeader {
    /// Parses the header at the start of `bytes`. `None` while too few bytes have arrived to know the length.
    ///
    /// The masking key, the last four bytes of the header, may still be missing.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = match first & 0x0F {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Malformed),
        };
        let (has_extension_bits, is_masked) = (first & 0x70 != 0, second & 0x80 != 0);
        if has_extension_bits || !is_masked {
            return Err(Malformed);
        }
        let (length_bytes, payload_bytes) = match second & 0x7F {
            126 => (2, rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes)))),
            127 => (8, rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))),
            short => (0, Some(u64::from(short))),
        };
        let header_bytes = 2 + length_bytes + MASK_BYTES;
        let is_final = first & 0x80 != 0;
        Ok(payload_bytes.map(|payload_bytes| Self { opcode, is_final, payload_bytes, header_bytes }))
    }

    /// Whether the frame is a control frame. It may come between the parts of a message.
    pub fn is_control(&self) -> bool {
        matches!(self.opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> FrameHeader {
        FrameHeader::parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn each_form_of_a_length_is_read_as_soon_as_it_is_there() {
        for (bytes, payload_bytes, header_bytes) in [
            (&[0x81, 0x80][..], 0, 6),
            (&[0x81, 0xFD], 125, 6),
            (&[0x81, 0xFE, 0x01, 0x00], 256, 8),
            (&[0x81, 0xFF, 0, 0, 0, 0, 0x40, 0, 0, 0], 1 << 30, 14),
            (&[0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], u64::MAX, 14),
        ] {
            let header = FrameHeader { opcode: Opcode::Text, is_final: true, payload_bytes, header_bytes };
            assert_eq!(parsed(bytes), header);
            for part in 0..bytes.len() {
                assert_eq!(FrameHeader::parse(&bytes[..part]), Ok(None), "{part} of {bytes:?}");
            }
        }
    }

    #[test]
    fn each_opcode_is_known_and_the_last_frame_of_a_message_as_well() {
        for (first, opcode, is_final, is_control) in [
            (0x00, Opcode::Continuation, false, false),
            (0x80, Opcode::Continuation, true, false),
            (0x01, Opcode::Text, false, false),
            (0x82, Opcode::Binary, true, false),
            (0x88, Opcode::Close, true, true),
            (0x89, Opcode::Ping, true, true),
            (0x8A, Opcode::Pong, true, true),
        ] {
            let header = parsed(&[first, 0x80]);
            assert_eq!((header.opcode, header.is_final, header.is_control()), (opcode, is_final, is_control));
        }
    }

    #[test]
    fn unknown_opcodes_extension_bits_and_frames_without_a_mask_are_malformed() {
        for bytes in [[0x83, 0x80], [0x8B, 0x80], [0xC1, 0x80], [0x91, 0x80], [0x81, 0x00]] {
            assert_eq!(FrameHeader::parse(&bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
