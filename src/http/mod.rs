//! stub
#![allow(missing_docs)]
use actix_web::web;
pub struct Gate;
impl Gate {
    pub fn new(_n: &crate::actors::Node) -> Result<Self, crate::vendure::signature::SecretError> {
        Ok(Self)
    }
}
pub fn configure(_c: &mut web::ServiceConfig) {}
pub fn layers() -> actix_web::middleware::Compat<actix_web::middleware::NormalizePath> {
    actix_web::middleware::Compat::new(Default::default())
}
