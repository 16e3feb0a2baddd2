//! What threadkv promises, checked from outside: the real binary, real sockets, one file a promise.

mod client;
mod description;
mod directory;
mod page;
mod process;
mod tokens;

mod access;
mod browser;
mod connections;
mod cors;
mod durability;
mod guard;
mod http;
mod json;
mod json_bodies;
mod json_bulk;
mod json_expiry;
mod json_hostile;
mod json_listing;
mod json_server;
mod json_values;
mod lsfr;
mod model;
mod openapi;
mod options;
mod rate_limits;
mod reclaim;
mod run_sh;
mod shutdown;
mod slow_disk;
mod values;
