//! The frames of a handshake, read and written one by one.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::HANDSHAKE_BYTES_MAX;
use crate::frame::{self, HEADER_BYTES, Header};
use crate::opening::TLS_RECORD;

/// Why no handshake frame could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The connection broke, or was closed before the first byte or within the payload.
    Io(io::Error),
    /// Something else came.
    Garbage {
        /// Its first bytes.
        start: [u8; HEADER_BYTES],
    },
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReadError {
    /// Whether an HTTP client wrote this.
    pub(crate) fn is_http(&self) -> bool {
        const METHODS: [&[u8]; 8] =
            [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"PRI * "];
        match self {
            Self::Io(_) => false,
            Self::Garbage { start } => METHODS.iter().any(|method| start.starts_with(method)),
        }
    }

    /// Whether somebody wants to speak TLS.
    pub(crate) fn is_tls(&self) -> bool {
        match self {
            Self::Io(_) => false,
            Self::Garbage { start } => start.starts_with(&[TLS_RECORD, 3]),
        }
    }
}

/// Reads one frame of the handshake, and not a byte more.
pub(crate) async fn read<M, S>(stream: &mut S) -> Result<M, ReadError>
where
    M: prost::Message + Default,
    S: AsyncRead + Unpin,
{
    read_within(stream, HANDSHAKE_BYTES_MAX).await
}

/// The same, of a frame with a payload of so many bytes at most.
pub(crate) async fn read_within<M, S>(stream: &mut S, limit: usize) -> Result<M, ReadError>
where
    M: prost::Message + Default,
    S: AsyncRead + Unpin,
{
    let mut start = [0; HEADER_BYTES];
    let count = stream.read(&mut start).await?;
    if count == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let rest = stream.read_exact(&mut start[count..]).await;
    let garbage = ReadError::Garbage { start };
    match rest {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(garbage),
        Err(error) => return Err(error.into()),
    }
    let Ok(header) = Header::read(start, limit) else { return Err(garbage) };
    let mut payload = vec![0; header.length];
    stream.read_exact(&mut payload).await?;
    match header.verify(&payload) {
        Ok(()) => M::decode(&payload[..]).map_err(|_| garbage),
        Err(_) => Err(garbage),
    }
}

/// Writes one frame of the handshake.
pub(crate) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &impl prost::Message) -> io::Result<()> {
    write_within(stream, message, HANDSHAKE_BYTES_MAX).await
}

/// The same, of a frame with a payload of so many bytes at most.
pub(crate) async fn write_within<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &impl prost::Message,
    limit: usize,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    frame::append(&mut buffer, limit, |buffer| {
        message.encode(buffer).expect("a BytesMut grows as needed");
    })
    .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    stream.write_all(&buffer).await?;
    // TLS keeps what it could not pass on at once.
    stream.flush().await
}
