//! The body of a reply, with what is held until it is written, or its connection is gone.
//!
//! - The [`Turn`] of its request: until then the connection is not idle.
//! - The end of a chunked request body that nobody wants to read. When a handler answers before it has read one, the server
//!   reads on to the body's end, without a deadline, as long as the handler has dropped its end of it: a client that never
//!   ends the body would hold a connection for ever. If that end is still held when the reply has been written, the server
//!   closes the connection instead.
//! - Room for a large reply. Who asks for much and takes nothing of it is cut off after a while, and may ask again at once:
//!   what all of them together keep in memory is bounded here.
//!
//! A large body goes out in pieces: the server copies each into a buffer of its own.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::{Method, header};
use actix_web::{HttpMessage as _, ResponseError as _};
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::Turn;
use crate::problem::Problem;

/// A reply of more bytes needs room; all others together, one for each connection, are bounded by their number.
const PIECE: usize = 64 << 10;
/// What large replies may weigh that are not taken yet, in KiB: some of the largest pages. Who asks for more pages than fit gets short
/// ones, so that more would only be memory, and time of processors, for those who take nothing.
const ROOM_KIB: usize = 64 << 10;

/// What large replies may still weigh, of all threads of a server.
pub(crate) struct Room(Arc<Semaphore>);

impl Room {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }

    /// How many bytes a page may have that has up to `most`, and half as many again in JSON: so many while there is room for some of those,
    /// since others are made meanwhile; else so few that it mostly needs none.
    pub(crate) fn for_page(&self, most: usize) -> usize {
        if self.0.available_permits() >= (4 * most) >> 10 { most } else { most.min(PIECE / 4) }
    }

    /// There is none until this is dropped.
    #[cfg(test)]
    pub(crate) fn fill(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(self.0.available_permits()).expect("KiB of some pages");
        Arc::clone(&self.0).try_acquire_many_owned(all).expect("nobody else takes any")
    }

    /// Takes room for a reply to a read, or there is none. A call has been executed: its caller must hear of it.
    fn take(&self, method: &Method, size: BodySize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let BodySize::Sized(bytes) = size else { return Ok(None) };
        if bytes <= PIECE as u64 {
            return Ok(None);
        }
        let weight = u32::try_from(bytes >> 10).unwrap_or(u32::MAX);
        match Arc::clone(&self.0).try_acquire_many_owned(weight) {
            Ok(room) => Ok(Some(room)),
            Err(_) if ![Method::GET, Method::HEAD].contains(method) => Ok(None),
            Err(_) => {
                let detail = "callers who are slow to take what they asked for leave no room for a large reply; ask for less, \
                              ask again, or ask another node";
                Err(Problem::unavailable("busy", detail))
            }
        }
    }
}

/// What a request holds until its reply is written.
pub(crate) struct Held {
    _turn: Option<Turn>,
    _unread: Option<Unread>,
}

impl Held {
    /// Takes hold of what a request has.
    pub(crate) fn of(request: &mut ServiceRequest) -> Self {
        Self { _turn: Turn::begin(request), _unread: Unread::of(request) }
    }

    /// The reply, or why there is no room for it.
    pub(crate) fn until_written(
        self,
        response: ServiceResponse<impl MessageBody + 'static>,
        room: &Room,
    ) -> ServiceResponse<Body> {
        let response = response.map_into_boxed_body();
        let (response, room) = match room.take(response.request().method(), response.response().body().size()) {
            Ok(room) => (response, room),
            Err(problem) => (response.into_response(problem.error_response()), None),
        };
        response.map_body(|_, body| Body { body, rest: Bytes::new(), _held: self, _room: room })
    }
}

/// See the module.
pub(crate) struct Body {
    body: BoxBody,
    /// What is left of the last piece of it.
    rest: Bytes,
    _held: Held,
    _room: Option<OwnedSemaphorePermit>,
}

impl MessageBody for Body {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_next(cx)) {
                Some(Ok(piece)) => this.rest = piece,
                end => return Poll::Ready(end),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(piece)))
    }
}

/// The body of a request, held beside the handler that reads it.
#[derive(Clone)]
struct Unread(Rc<RefCell<Payload>>);

impl Unread {
    /// Takes hold of the body, if it is a chunked one.
    fn of(request: &mut ServiceRequest) -> Option<Self> {
        request.headers().get(header::TRANSFER_ENCODING)?;
        let held = Self(Rc::new(RefCell::new(request.take_payload())));
        request.set_payload(Payload::Stream { payload: Box::pin(held.clone()) });
        Some(held)
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::HttpResponse;
    use actix_web::test::TestRequest;

    use super::*;

    fn reply(method: &Method, bytes: usize, room: &Room) -> ServiceResponse<Body> {
        let mut request = TestRequest::default().method(method.clone()).to_srv_request();
        let held = Held::of(&mut request);
        held.until_written(request.into_response(HttpResponse::Ok().body(vec![7; bytes])), room)
    }

    /// Catches callers who ask for much, take nothing, and fill the memory; room that is not given back; a small reply that
    /// needs some; and a call that was executed, and whose caller is told that it was not.
    #[actix_web::test]
    async fn large_replies_need_room() {
        let room = Room(Arc::new(Semaphore::new(200)));
        let first = reply(&Method::GET, 150 << 10, &room);
        let second = reply(&Method::GET, 150 << 10, &room);
        assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 503));
        assert!(second.headers().contains_key(header::RETRY_AFTER));
        assert_eq!(reply(&Method::POST, 150 << 10, &room).status(), 200);
        assert_eq!(reply(&Method::GET, PIECE, &room).status(), 200);
        drop(first);
        assert_eq!(reply(&Method::GET, 150 << 10, &room).status(), 200);
    }

    /// RELIABILITY 5, row 13. Catches large pages that are made and then refused, one after the other, for callers who take none of
    /// them; and pages that are short although there is room.
    #[actix_web::test]
    async fn pages_are_short_where_there_is_no_room_for_large_ones() {
        let room = Room(Arc::new(Semaphore::new(800)));
        assert_eq!(room.for_page(200 << 10), 200 << 10);
        let held = reply(&Method::GET, 100 << 10, &room);
        assert_eq!((room.for_page(200 << 10), room.for_page(100 << 10)), (PIECE / 4, 100 << 10));
        assert_eq!(reply(&Method::GET, 3 * (PIECE / 4), &room).status(), 200, "with what JSON adds it needs none");
        drop(held);
        assert_eq!(room.for_page(200 << 10), 200 << 10);
    }

    /// Catches a body that loses or repeats a part, or goes out in one piece, which the server would copy.
    #[actix_web::test]
    async fn a_large_body_goes_out_whole_in_pieces() {
        let whole: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let mut request = TestRequest::default().to_srv_request();
        let held = Held::of(&mut request);
        let response = request.into_response(HttpResponse::Ok().body(whole.clone()));
        let mut body = held.until_written(response, &Room::new()).into_body();
        assert_eq!(body.size(), BodySize::Sized(200_000));
        let mut pieces = Vec::new();
        while let Some(piece) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_next(cx)).await {
            pieces.push(piece.expect("a part of it"));
        }
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        assert_eq!(pieces.concat(), whole);
    }
}
