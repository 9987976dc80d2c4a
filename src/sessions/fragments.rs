//! Text frames that come in pieces, put together within a bound.

use actix_http::ws::Item;

use crate::protocol::MAX_BATCH_BYTES;

/// The pieces of a frame so far.
#[derive(Default)]
pub struct Fragments(Option<Vec<u8>>);

/// What a piece came to.
pub enum Piece {
    /// More is to come.
    More,
    /// The frame is whole.
    Whole(String),
    /// Of a binary frame.
    Binary,
    /// The frame is too big.
    TooBig,
    /// The frame is not UTF-8.
    NotUtf8,
}

impl Fragments {
    /// Takes a piece. One without a beginning is ignored.
    pub fn take(&mut self, item: Item) -> Piece {
        let (bytes, last) = match item {
            Item::FirstText(bytes) => {
                self.0 = Some(Vec::new());
                (bytes, false)
            }
            Item::FirstBinary(_) => return Piece::Binary,
            Item::Continue(bytes) => (bytes, false),
            Item::Last(bytes) => (bytes, true),
        };
        let Some(so_far) = &mut self.0 else { return Piece::More };
        if so_far.len() + bytes.len() > MAX_BATCH_BYTES {
            return Piece::TooBig;
        }
        so_far.extend_from_slice(&bytes);
        match self.0.take_if(|_| last) {
            Some(whole) => String::from_utf8(whole).map_or(Piece::NotUtf8, Piece::Whole),
            None => Piece::More,
        }
    }
}
