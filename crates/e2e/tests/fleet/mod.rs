//! Gateways on many machines: how they join, and what becomes of them when something dies.

mod joining;
mod outages;
mod publishing;
mod release_sets;
mod standalone;
