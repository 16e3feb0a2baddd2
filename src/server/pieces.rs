//! Bodies of any length, which are never in memory whole.
//!
//! Whoever takes such a body gets one piece at a time, and says when it is done with it. Only then is more read from the client, which has
//! to wait meanwhile: TCP sees to that. So a store that is slow slows the client down, and takes no memory.

use super::response::Response;

/// A piece has so many bytes, or up to a read more; the last one may have fewer.
pub const PIECE: usize = 1 << 20;

/// Takes a body in pieces.
pub trait Pieces: Send {
    /// Takes the next piece, on a thread for what takes long. It must not wait. It calls `done`, then or later, on any thread.
    fn take(self: Box<Self>, piece: Piece, done: Done);
}

/// A part of a body.
pub struct Piece {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether the body ends with it.
    pub is_last: bool,
}

/// To be called once a piece has been taken. If it is dropped, the request is answered with 500.
pub type Done = Box<dyn FnOnce(Taken) + Send>;

/// What comes after a piece.
pub enum Taken {
    /// The next piece is for this one.
    More(Box<dyn Pieces>),
    /// The answer; whatever else the client sends is not read.
    Answer(Response),
}
