//! Frames: how one message is cut out of a stream of bytes.
//!
//! ```text
//! +----------------+----------------+------------------+
//! | length, u32 BE | CRC-32C, u32 BE| payload          |
//! +----------------+----------------+------------------+
//!   of the payload   of the payload   `length` bytes
//! ```
//!
//! The length is judged before anything is allocated for it. The checksum is there because
//! TCP's own 16 bits miss what broken memory in a switch does to a stream that carries votes;
//! it says nothing about who sent the bytes. DESIGN 11.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest payload, in bytes: 16 MiB. The largest legitimate message is a run of commands,
/// which leaders and learners cut at a few MiB; one value has at most 1 MiB.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// What precedes the payload: length and checksum.
pub const HEADER_BYTES: usize = 8;

/// Why bytes are not a frame. After any of these the stream has no next frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond the limit.
    #[error("a frame of {length} bytes, the limit is {limit}")]
    TooLarge {
        /// The length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The checksum is not that of the payload.
    #[error("the checksum of a frame is wrong")]
    Checksum,
}

impl FrameError {
    /// The label in metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Checksum => "checksum",
        }
    }
}

/// A frame's first eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the payload, in bytes; within the limit.
    pub length: usize,
    checksum: u32,
}

impl Header {
    /// Reads a header and judges its length, in bytes, against `limit`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] beyond `limit`.
    pub fn read(bytes: [u8; HEADER_BYTES], limit: usize) -> Result<Self, FrameError> {
        let mut bytes = &bytes[..];
        let (length, checksum) = (bytes.get_u32(), bytes.get_u32());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > limit {
            return Err(FrameError::TooLarge { length, limit });
        }
        Ok(Self { length, checksum })
    }

    /// Judges the payload that followed this header.
    ///
    /// # Errors
    /// [`FrameError::Checksum`].
    pub fn verify(self, payload: &[u8]) -> Result<(), FrameError> {
        if crc32c::crc32c(payload) == self.checksum { Ok(()) } else { Err(FrameError::Checksum) }
    }
}

/// Appends a frame whose payload is what `write` appends. Leaves `buffer` as it was when the
/// payload exceeds `limit` bytes.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn append(buffer: &mut BytesMut, limit: usize, write: impl FnOnce(&mut BytesMut)) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.put_bytes(0, HEADER_BYTES);
    write(buffer);
    let payload = &buffer[start + HEADER_BYTES..];
    let too_large = FrameError::TooLarge { length: payload.len(), limit };
    let (length, checksum) = match u32::try_from(payload.len()) {
        Ok(length) if payload.len() <= limit => (length, crc32c::crc32c(payload)),
        Ok(_) | Err(_) => {
            buffer.truncate(start);
            return Err(too_large);
        }
    };
    let mut header = &mut buffer[start..start + HEADER_BYTES];
    header.put_u32(length);
    header.put_u32(checksum);
    Ok(())
}

/// Takes the first frame off `buffer` and returns its payload, which shares the buffer's
/// memory. `None` while it is incomplete; then room for the rest of it is reserved.
///
/// # Errors
/// [`FrameError`] when what stands there is not a frame; the stream is then of no use.
pub fn take(buffer: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::read(*header, limit)?;
    let end = HEADER_BYTES + header.length;
    if buffer.len() < end {
        buffer.reserve(end - buffer.len());
        return Ok(None);
    }
    header.verify(&buffer[HEADER_BYTES..end])?;
    let mut frame = buffer.split_to(end);
    frame.advance(HEADER_BYTES);
    Ok(Some(frame.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(payload: &[u8]) -> BytesMut {
        let mut buffer = BytesMut::new();
        append(&mut buffer, FRAME_BYTES_MAX, |buffer| buffer.put_slice(payload)).expect("a small frame");
        buffer
    }

    /// Catches a frame that is delivered early, late, or together with its neighbour's bytes,
    /// however TCP cuts the stream.
    #[test]
    fn frames_come_out_whole_and_in_order_however_the_stream_is_cut() {
        let stream = [&frame(b"first")[..], &frame(b""), &frame(b"third")].concat();
        for piece in 1..=stream.len() {
            let (mut buffer, mut payloads) = (BytesMut::new(), Vec::new());
            for bytes in stream.chunks(piece) {
                buffer.put_slice(bytes);
                while let Some(payload) = take(&mut buffer, 16).expect("good frames") {
                    payloads.push(payload);
                }
            }
            assert_eq!(payloads, [&b"first"[..], b"", b"third"], "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    /// Catches an allocation that a stranger's four bytes can ask for, and a limit that is off
    /// by one on either side.
    #[test]
    fn a_length_beyond_the_limit_is_refused_before_any_allocation() {
        let mut huge = BytesMut::from(&[0xff; HEADER_BYTES][..]);
        let length = usize::try_from(u32::MAX).expect("64 bits");
        assert_eq!(take(&mut huge, FRAME_BYTES_MAX), Err(FrameError::TooLarge { length, limit: FRAME_BYTES_MAX }));
        assert!(huge.capacity() < 1024, "{} bytes were reserved", huge.capacity());
        assert_eq!(take(&mut frame(b"12345"), 4), Err(FrameError::TooLarge { length: 5, limit: 4 }));
        assert_eq!(take(&mut frame(b"1234"), 4), Ok(Some(Bytes::from_static(b"1234"))));
    }

    /// Catches a sender that leaves half a frame in the buffer when a message is too large: the
    /// receiver would lose the stream.
    #[test]
    fn a_payload_beyond_the_limit_leaves_the_buffer_as_it_was() {
        let mut buffer = frame(b"before");
        let before = buffer.clone();
        let refused = append(&mut buffer, 4, |buffer| buffer.put_slice(b"12345"));
        assert_eq!(refused, Err(FrameError::TooLarge { length: 5, limit: 4 }));
        assert_eq!(buffer, before);
    }

    /// Catches a checksum that covers less than the whole payload: each flipped bit is seen.
    #[test]
    fn every_flipped_bit_of_a_payload_is_noticed() {
        let good = frame(b"a vote");
        for bit in HEADER_BYTES * 8..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(take(&mut bad, FRAME_BYTES_MAX), Err(FrameError::Checksum), "bit {bit}");
        }
    }

    proptest! {
        /// RELIABILITY 6, row 13: catches a panic on bytes from anybody.
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer, 32) {}
        }
    }
}
