//! A connection, with TLS or without, that can move to the thread of its lane.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::tls::{self, Name};

/// A connection.
pub(crate) enum Stream {
    /// As it is.
    Plain(Socket),
    /// Encrypted; each side has shown its certificate.
    Tls(Box<TlsStream<Socket>>),
}

/// What is proven of the other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proven {
    /// Nothing: there is no TLS between nodes.
    Nothing,
    /// Its certificate is good, and names this node, or none.
    Name(Option<Name>),
}

impl Stream {
    pub(crate) fn proven(&self) -> Proven {
        match self {
            Self::Plain(_) => Proven::Nothing,
            Self::Tls(stream) => Proven::Name(tls::named(stream.get_ref().1.peer_certificates())),
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }

    /// Leaves the thread on which it was made.
    pub(crate) fn leave(mut self) -> io::Result<Moving> {
        let socket = self.socket_mut();
        *socket = match std::mem::replace(socket, Socket::Nowhere) {
            Socket::Here(stream) => Socket::Between(stream.into_std()?),
            elsewhere @ (Socket::Between(_) | Socket::Nowhere) => elsewhere,
        };
        Ok(Moving(self))
    }
}

/// A connection between two threads.
pub(crate) struct Moving(Stream);

impl Moving {
    /// Arrives at this thread.
    pub(crate) fn arrive(mut self) -> io::Result<Stream> {
        let socket = self.0.socket_mut();
        *socket = match std::mem::replace(socket, Socket::Nowhere) {
            Socket::Between(stream) => Socket::Here(TcpStream::from_std(stream)?),
            elsewhere @ (Socket::Here(_) | Socket::Nowhere) => elsewhere,
        };
        Ok(self.0)
    }
}

/// A socket that can be taken from one thread to another while TLS holds on to it.
pub(crate) enum Socket {
    /// On the thread that uses it.
    Here(TcpStream),
    /// On its way.
    Between(std::net::TcpStream),
    /// The way failed.
    Nowhere,
}

impl Socket {
    /// The socket, on the thread that uses it.
    pub(crate) fn here(&self) -> io::Result<&TcpStream> {
        match self {
            Self::Here(stream) => Ok(stream),
            Self::Between(_) | Self::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn pinned(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match self.get_mut() {
            Self::Here(stream) => Ok(Pin::new(stream)),
            Self::Between(_) | Self::Nowhere => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pinned()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pinned()?.poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
