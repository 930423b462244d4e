//! Bytes before a client's first: a header of the PROXY protocol is read to its end and never further.

#![no_main]

use gatewright_gateway::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|received: &[u8]| fuzzing::proxy_protocol(received));
