//! Black-box tests of the service: the real program, real PostgreSQL and Redis, real sockets, a shop that can fail.

#![allow(missing_docs)]

mod support;

mod smoke;
