#![allow(missing_docs)]
#[derive(Clone)] pub struct SigningSecret; #[derive(Clone)] pub struct SharedSecret;
pub fn sign(_s:&[SigningSecret], _id:&str, _t:i64, _b:&[u8])->String { String::new() }
