#![allow(missing_docs)]
#[derive(Clone)] pub struct SigningSecret; #[derive(Clone)] pub struct SharedSecret;
pub fn sign(_s:&[SigningSecret], _id:&str, _t:i64, _b:&[u8])->String { String::new() }
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct SecretError;
impl SigningSecret { pub fn parse(_s:&str)->Result<Self, SecretError> { Ok(Self) } }
impl SharedSecret { pub fn new(_s:&str)->Self { Self } }
