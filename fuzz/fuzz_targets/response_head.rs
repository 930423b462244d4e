//! Bytes from the network as response heads: what the codec accepts, a slow and obvious reader reads alike.

#![no_main]

use gatewright_gateway::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|received: &[u8]| fuzzing::response_head(received));
