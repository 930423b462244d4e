//! Route tables and requests as text: the router finds what a slow and obvious matcher finds.

#![no_main]

use gatewright_gateway::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| fuzzing::route_table(text));
