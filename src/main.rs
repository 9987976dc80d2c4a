//! The program. Everything lives in the library; this starts it.

fn main() {}
