//! Black-box journeys over the real executable.
