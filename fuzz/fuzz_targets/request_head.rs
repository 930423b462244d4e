//! Bytes from the network as request heads: what the codec accepts, a slow and obvious reader reads alike.

#![no_main]

use gatewright_gateway::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|received: &[u8]| fuzzing::request_head(received));
