//! Every Redis command.
